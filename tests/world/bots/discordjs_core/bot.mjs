// A bot with discord.js's own parts, @discordjs/core and @discordjs/ws, which keep a session over a restart: see
// tests/world/README.md.
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { Client, GatewayDispatchEvents, GatewayIntentBits } from "@discordjs/core";
import { REST } from "@discordjs/rest";
import { WebSocketManager } from "@discordjs/ws";

const say = (saw, more = {}) => console.log(JSON.stringify({ saw, ...more }));
const shards = Number(process.env.BOT_SHARDS);
const folder = process.env.BOT_SESSIONS;
const sessions = new Map();

const retrieveSessionInfo = (shard) => {
  if (!sessions.has(shard) && folder) {
    try {
      sessions.set(shard, JSON.parse(readFileSync(`${folder}/${shard}`, "utf8")));
    } catch {
      // None is kept.
    }
  }
  return sessions.get(shard) ?? null;
};

const updateSessionInfo = (shard, session) => {
  sessions.set(shard, session);
  if (!folder) return;
  if (!session) return rmSync(`${folder}/${shard}`, { force: true });
  writeFileSync(`${folder}/${shard}.new`, JSON.stringify(session));
  renameSync(`${folder}/${shard}.new`, `${folder}/${shard}`);
};

// It adds the version itself.
const rest = new REST({ api: process.env.BOT_API.replace(/\/v10$/, "") }).setToken(process.env.BOT_TOKEN);
const gateway = new WebSocketManager({
  token: process.env.BOT_TOKEN,
  intents: Object.values(GatewayIntentBits).filter(Number.isInteger).reduce((all, each) => all | each),
  rest,
  shardCount: shards,
  initialPresence: { status: "idle", activities: [{ name: "the journey", type: 0 }], since: null, afk: false },
  retrieveSessionInfo,
  updateSessionInfo,
});
const client = new Client({ rest, gateway });
const own = Number((BigInt(process.env.BOT_GUILD) >> 22n) % BigInt(shards));
let asked = false;

client.on(GatewayDispatchEvents.Ready, async ({ api, data, shardId }) => {
  say("ready");
  if (asked || shardId !== own) return;
  asked = true;
  const option = { type: 3, name: "text", description: "What to say", required: true };
  const ping = { name: "ping", description: "Pong?", options: [option] };
  await api.applicationCommands.bulkOverwriteGlobalCommands(data.application.id, [ping]);
  const found = await client.requestGuildMembers({ guild_id: process.env.BOT_GUILD, query: "", limit: 0 });
  say("members", { count: found.members.length });
});

client.on(GatewayDispatchEvents.Resumed, () => say("resumed"));

client.on(GatewayDispatchEvents.MessageCreate, ({ data }) => {
  if (data.content.startsWith("note ")) say("note", { text: data.content });
});

client.on(GatewayDispatchEvents.InteractionCreate, async ({ api, data }) => {
  const text = data.data.options[0].value;
  try {
    await api.interactions.reply(data.id, data.token, { content: `pong ${text}` });
    say("answered", { text });
  } catch (error) {
    // The interaction came after the three seconds within which Discord takes an answer.
    console.error(error);
  }
});

gateway.on("error", (error) => console.error(error));
process.on("SIGTERM", async () => {
  await gateway.destroy();
  process.exit(0);
});
await gateway.connect();
