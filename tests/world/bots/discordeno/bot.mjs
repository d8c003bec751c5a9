// A bot with discordeno: see tests/world/README.md.
import { createBot, Intents } from "discordeno";

const say = (saw, more = {}) => console.log(JSON.stringify({ saw, ...more }));
const shards = Number(process.env.BOT_SHARDS);
let ready = 0;
const bot = createBot({
  token: process.env.BOT_TOKEN,
  intents: Object.values(Intents).filter(Number.isInteger).reduce((all, each) => all | each),
  // What it calls a proxy gets the token as it is given here, and paths with the version.
  rest: { proxy: { baseUrl: process.env.BOT_API.replace(/\/v10$/, ""), authorization: `Bot ${process.env.BOT_TOKEN}` } },
  gateway: { cache: { requestMembers: { enabled: true } }, totalShards: shards, lastShardId: shards - 1 },
  desiredProperties: {
    interaction: { id: true, token: true, type: true, data: true },
    member: { id: true },
    message: { id: true, content: true },
    user: { id: true },
  },
  events: {
    async ready() {
      say("ready");
      ready += 1;
      if (ready !== shards) return;
      await bot.gateway.editBotStatus({ status: "idle", activities: [{ name: "the journey", type: 0 }] });
      const option = { type: 3, name: "text", description: "What to say", required: true };
      await bot.helpers.upsertGlobalApplicationCommands([{ name: "ping", description: "Pong?", options: [option] }]);
      const members = await bot.gateway.requestMembers(BigInt(process.env.BOT_GUILD), { limit: 0, query: "" });
      say("members", { count: members.length });
    },
    messageCreate(message) {
      if (message.content.startsWith("note ")) say("note", { text: message.content });
    },
    async interactionCreate(interaction) {
      const text = interaction.data.options[0].value;
      try {
        await interaction.respond(`pong ${text}`);
        say("answered", { text });
      } catch (error) {
        // The interaction came after the three seconds within which Discord takes an answer.
        console.error(error);
      }
    },
  },
});
bot.gateway.events.resumed = () => say("resumed");
process.on("SIGTERM", async () => {
  await bot.shutdown();
  process.exit(0);
});
await bot.start();
