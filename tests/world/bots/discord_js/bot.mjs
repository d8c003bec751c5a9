// A bot with discord.js: see tests/world/README.md.
import { Client, Events, GatewayIntentBits, SlashCommandBuilder } from "discord.js";

const say = (saw, more = {}) => console.log(JSON.stringify({ saw, ...more }));
const client = new Client({
  intents: Object.values(GatewayIntentBits).filter(Number.isInteger),
  // discord.js adds the version itself.
  rest: { api: process.env.BOT_API.replace(/\/v10$/, "") },
  shardCount: Number(process.env.BOT_SHARDS),
  presence: { status: "idle", activities: [{ name: "the journey" }] },
});

client.once(Events.ClientReady, async () => {
  const ping = new SlashCommandBuilder()
    .setName("ping")
    .setDescription("Pong?")
    .addStringOption((option) => option.setName("text").setDescription("What to say").setRequired(true));
  await client.application.commands.set([ping]);
  const guild = client.guilds.cache.get(process.env.BOT_GUILD);
  say("members", { count: (await guild.members.fetch()).size });
});

client.on(Events.ShardReady, () => say("ready"));

client.on(Events.ShardResume, () => say("resumed"));

client.on(Events.MessageCreate, (message) => {
  if (message.content.startsWith("note ")) say("note", { text: message.content });
});

client.on(Events.InteractionCreate, async (interaction) => {
  if (!interaction.isChatInputCommand()) return;
  const text = interaction.options.getString("text");
  try {
    await interaction.reply(`pong ${text}`);
    say("answered", { text });
  } catch (error) {
    // The interaction came after the three seconds within which Discord takes an answer.
    console.error(error);
  }
});

client.on(Events.Error, (error) => console.error(error));
process.on("SIGTERM", async () => {
  await client.destroy();
  process.exit(0);
});
await client.login(process.env.BOT_TOKEN);
