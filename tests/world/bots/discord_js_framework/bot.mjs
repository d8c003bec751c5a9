// A bot with discord.js as many are: a small framework of commands with converters and checks, buttons, a paginator that
// waits for its user, and answers from its cache. Of all its lines one sends it to the gateway proxy.
import {
  ActionRowBuilder,
  ButtonBuilder,
  ButtonStyle,
  Client,
  Collection,
  ComponentType,
  Events,
  GatewayIntentBits,
  SlashCommandBuilder,
} from "discord.js";

const PREFIX = "!";

// What commands take, made of words.

class BadArgument extends Error {}
class RangeExceeded extends Error {}
class CheckFailed extends Error {}

const member = (word, message) => {
  const id = /^<@!?(\d+)>$/.exec(word ?? "")?.[1];
  const found = message.guild.members.cache.find((each) => each.id === id || each.user.username === word);
  if (!found) throw new BadArgument(`no member ${word}`);
  return found;
};

const celsius = (word) => {
  const found = /^(-?\d+(?:\.\d+)?)([CF])$/i.exec(word ?? "");
  if (!found) throw new BadArgument(`no temperature ${word}`);
  const degrees = Number(found[1]);
  return found[2].toUpperCase() === "F" ? ((degrees - 32) * 5) / 9 : degrees;
};

const between = (least, most) => (word) => {
  const number = Number(word);
  if (!Number.isInteger(number)) throw new BadArgument(`no number ${word}`);
  if (number < least || number > most) throw new RangeExceeded(`${number} is not from ${least} to ${most}`);
  return number;
};

const rest = Symbol("all words that are left");

// The framework.

class Commands {
  #commands = new Collection();
  #cooldowns = new Collection();

  add(names, takes, run, { cooldown = 0, checks = [] } = {}) {
    const command = { name: names[0], takes, run, cooldown, checks };
    for (const name of names) this.#commands.set(name, command);
    return this;
  }

  async handle(message) {
    if (message.author.bot || !message.inGuild() || !message.content.startsWith(PREFIX)) return;
    const [name, ...words] = message.content.slice(PREFIX.length).trim().split(/\s+/);
    const command = this.#commands.get(name.toLowerCase());
    if (!command) return;
    try {
      this.#check(command, message);
      await command.run(message, ...command.takes.map((take) => this.#take(take, words, message)));
    } catch (error) {
      await message.channel.send(error.constructor.name);
    }
  }

  #take(take, words, message) {
    return take === rest ? words.splice(0).join(" ") : take(words.shift(), message);
  }

  #check({ name, cooldown, checks }, message) {
    for (const check of checks) if (!check(message)) throw new CheckFailed(name);
    const key = `${name}:${message.author.id}`;
    if (Date.now() < (this.#cooldowns.get(key) ?? 0)) throw new CheckFailed(`${name} was used a moment ago`);
    if (cooldown) this.#cooldowns.set(key, Date.now() + cooldown);
  }
}

const isOwner = (message) => message.guild.ownerId === message.author.id;

// The commands.

const commands = new Commands()
  .add(["hello", "hi"], [member, rest], (message, who, words) =>
    message.channel.send(`${words}, ${who.displayName}, of ${who.roles.cache.size} roles`),
  )
  .add(["celsius", "temp"], [celsius], (message, degrees) => message.channel.send(`${degrees.toFixed(1)} C`))
  .add(["count"], [], (message) => {
    const humans = message.guild.members.cache.filter((each) => !each.user.bot).size;
    return message.channel.send(`${humans} members, ${message.guild.channels.cache.size} channels`);
  })
  .add(["secret"], [], (message) => message.channel.send("for the owner alone"), { checks: [isOwner] })
  .add(["ask"], [], async (message) => {
    const buttons = new ActionRowBuilder().addComponents(
      new ButtonBuilder().setCustomId("yes").setLabel("Yes").setStyle(ButtonStyle.Success),
      new ButtonBuilder().setCustomId("no").setLabel("No").setStyle(ButtonStyle.Danger),
    );
    const asked = await message.channel.send({ content: "sure?", components: [buttons] });
    const press = await asked.awaitMessageComponent({
      componentType: ComponentType.Button,
      filter: (each) => each.user.id === message.author.id,
      time: 60_000,
    });
    const words = press.customId === "yes" ? "confirmed" : "refused";
    await press.update({ content: `${words} by ${press.user.username}`, components: [] });
  })
  .add(["pages"], [between(1, 10)], async (message, pages) => {
    const shown = await message.channel.send("page 1");
    const collector = message.channel.createMessageCollector({
      filter: (each) => each.author.id === message.author.id && each.content === "next",
      max: pages - 1,
      time: 60_000,
    });
    let page = 1;
    collector.on("collect", () => shown.edit(`page ${(page += 1)}`));
  });

// The client.

const client = new Client({
  intents: [
    GatewayIntentBits.Guilds,
    GatewayIntentBits.GuildMembers,
    GatewayIntentBits.GuildPresences,
    GatewayIntentBits.GuildMessages,
    GatewayIntentBits.MessageContent,
  ],
  shards: "auto",
  rest: { api: process.env.BOT_API.replace(/\/v10$/, "") },
});

client.once(Events.ClientReady, async () => {
  const add = new SlashCommandBuilder().setName("add").setDescription("A sum");
  for (const name of ["a", "b"]) {
    add.addIntegerOption((option) => option.setName(name).setDescription("A number").setRequired(true));
  }
  await client.application.commands.set([add]);
  console.log(JSON.stringify({ saw: "ready", guilds: client.guilds.cache.size, shards: client.ws.shards.size }));
});

client.on(Events.MessageCreate, (message) => commands.handle(message));

client.on(Events.InteractionCreate, async (interaction) => {
  if (!interaction.isChatInputCommand()) return;
  const { options } = interaction;
  try {
    await interaction.reply(String(options.getInteger("a") + options.getInteger("b")));
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
