// A bot with eris: see tests/world/README.md. Its REST knows no HTTP without TLS, and no port but by its agent.
import { Agent } from "node:https";
import { Client, CommandInteraction } from "eris";

const say = (saw, more = {}) => console.log(JSON.stringify({ saw, ...more }));
const address = new URL(process.env.BOT_API);
const agent = new Agent({ keepAlive: true });
agent.defaultPort = Number(address.port);
const client = new Client(`Bot ${process.env.BOT_TOKEN}`, {
  intents: ["all"],
  maxShards: Number(process.env.BOT_SHARDS),
  rest: { domain: address.hostname, baseURL: address.pathname, agent },
});

// The gateway may stand elsewhere than REST.
client.getBotGateway = async () => ({ url: process.env.BOT_GATEWAY, shards: Number(process.env.BOT_SHARDS) });

client.on("shardPreReady", () => say("ready"));

client.once("ready", async () => {
  client.editStatus("idle", [{ name: "the journey", type: 0 }]);
  await client.bulkEditCommands([
    { name: "ping", description: "Pong?", options: [{ name: "text", description: "What to say", type: 3, required: true }] },
  ]);
  const members = await client.guilds.get(process.env.BOT_GUILD).fetchMembers();
  say("members", { count: members.length });
});

client.on("shardResume", () => say("resumed"));

client.on("messageCreate", (message) => {
  if (message.content.startsWith("note ")) say("note", { text: message.content });
});

client.on("interactionCreate", async (interaction) => {
  if (!(interaction instanceof CommandInteraction)) return;
  const text = interaction.data.options[0].value;
  try {
    await interaction.createMessage(`pong ${text}`);
    say("answered", { text });
  } catch (error) {
    // The interaction came after the three seconds within which Discord takes an answer.
    console.error(error);
  }
});

client.on("error", (error) => console.error(error));
client.on("warn", (message) => console.error(message));
process.on("SIGTERM", () => {
  client.disconnect({ reconnect: false });
  setTimeout(() => process.exit(0), 500);
});
await client.connect();
