//! A bot with serenity: see tests/world/README.md.
use std::env::var;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serenity::all::*;

struct Bot {
    guild: GuildId,
    asked: AtomicBool,
    chunks: AtomicUsize,
    members: AtomicUsize,
}

#[async_trait]
impl EventHandler for Bot {
    async fn ready(&self, ctx: Context, ready: Ready) {
        println!(r#"{{"saw":"ready"}}"#);
        let shard = ready.shard.expect("a shard");
        if shard.id.0 != ((self.guild.get() >> 22) % u64::from(shard.total)) as u32 {
            return;
        }
        if !self.asked.swap(true, Ordering::SeqCst) {
            ctx.shard.chunk_guild(self.guild, None, false, ChunkGuildFilter::None, Some("members".to_owned()));
        }
    }

    async fn resume(&self, _: Context, _: ResumedEvent) {
        println!(r#"{{"saw":"resumed"}}"#);
    }

    async fn guild_members_chunk(&self, _: Context, chunk: GuildMembersChunkEvent) {
        // Handlers run side by side: the last chunk may be counted before the first.
        self.members.fetch_add(chunk.members.len(), Ordering::SeqCst);
        if self.chunks.fetch_add(1, Ordering::SeqCst) + 1 == chunk.chunk_count as usize {
            let count = self.members.load(Ordering::SeqCst);
            println!(r#"{{"saw":"members","count":{count}}}"#);
        }
    }

    async fn message(&self, _: Context, message: Message) {
        if message.content.starts_with("note ") {
            println!(r#"{{"saw":"note","text":"{}"}}"#, message.content);
        }
    }

    async fn interaction_create(&self, ctx: Context, interaction: Interaction) {
        let Interaction::Command(command) = interaction else { return };
        let text = command.data.options[0].value.as_str().expect("a string").to_owned();
        let message = CreateInteractionResponseMessage::new().content(format!("pong {text}"));
        match command.create_response(&ctx.http, CreateInteractionResponse::Message(message)).await {
            Ok(()) => println!(r#"{{"saw":"answered","text":"{text}"}}"#),
            Err(error) => eprintln!("{error:?}"),
        }
    }
}

#[tokio::main]
async fn main() {
    let token = var("BOT_TOKEN").expect("BOT_TOKEN");
    let address = var("BOT_API").expect("BOT_API");
    // Its proxy is used only where its own limits are off.
    let proxy = address.trim_end_matches("/api/v10");
    let http = HttpBuilder::new(&token).proxy(proxy).ratelimiter_disabled(true).build();
    let application = http.get_current_application_info().await.expect("an application").id;
    http.set_application_id(application);
    let option = CreateCommandOption::new(CommandOptionType::String, "text", "What to say").required(true);
    let command = CreateCommand::new("ping").description("Pong?").add_option(option);
    Command::set_global_commands(&http, vec![command]).await.expect("commands");
    let guild = GuildId::new(var("BOT_GUILD").expect("BOT_GUILD").parse().expect("a snowflake"));
    let bot = Bot { guild, asked: AtomicBool::new(false), chunks: AtomicUsize::new(0), members: AtomicUsize::new(0) };
    let intents = GatewayIntents::all();
    let mut client = ClientBuilder::new_with_http(http, intents)
        .event_handler(bot)
        .status(OnlineStatus::Idle)
        .activity(ActivityData::playing("the journey"))
        .await
        .expect("a client");
    let shards = var("BOT_SHARDS").expect("BOT_SHARDS").parse().expect("a number");
    client.start_shards(shards).await.expect("a gateway");
}
