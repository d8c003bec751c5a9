// A bot with oceanic.js: see tests/world/README.md.
import { ApplicationCommandOptionTypes, ApplicationCommandTypes, Client } from "oceanic.js";

const say = (saw, more = {}) => console.log(JSON.stringify({ saw, ...more }));
const client = new Client({
  auth: `Bot ${process.env.BOT_TOKEN}`,
  gateway: {
    intents: ["ALL"],
    maxShards: Number(process.env.BOT_SHARDS),
    presence: { status: "idle", activities: [{ name: "the journey", type: 0 }] },
  },
  rest: { baseURL: process.env.BOT_API },
});

// Its "shardReady" is told once for a connection, although a second READY may come on it after op 9.
client.on("shardPreReady", () => say("ready"));

client.once("ready", async () => {
  await client.application.bulkEditGlobalCommands([
    {
      type: ApplicationCommandTypes.CHAT_INPUT,
      name: "ping",
      description: "Pong?",
      options: [{ type: ApplicationCommandOptionTypes.STRING, name: "text", description: "What to say", required: true }],
    },
  ]);
  const members = await client.guilds.get(process.env.BOT_GUILD).fetchMembers();
  say("members", { count: members.length });
});

client.on("shardResume", () => say("resumed"));

client.on("messageCreate", (message) => {
  if (message.content.startsWith("note ")) say("note", { text: message.content });
});

client.on("interactionCreate", async (interaction) => {
  if (!interaction.isCommandInteraction()) return;
  const text = interaction.data.options.getString("text", true);
  try {
    await interaction.createMessage({ content: `pong ${text}` });
    say("answered", { text });
  } catch (error) {
    // The interaction came after the three seconds within which Discord takes an answer.
    console.error(error);
  }
});

client.on("error", (error) => console.error(error));
client.on("warn", (message) => console.error(message));
process.on("SIGTERM", () => {
  client.disconnect(false);
  setTimeout(() => process.exit(0), 500);
});
await client.connect();
