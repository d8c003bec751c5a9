//! A bot with twilight: see tests/world/README.md.
use std::env::var;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;
use twilight_gateway::{
    ConfigBuilder, Event, EventTypeFlags, Intents, Session, Shard, ShardId, StreamExt as _,
};
use twilight_http::Client;
use twilight_model::application::command::{CommandOption, CommandOptionType};
use twilight_model::application::interaction::application_command::CommandOptionValue;
use twilight_model::application::interaction::InteractionData;
use twilight_model::gateway::payload::outgoing::update_presence::UpdatePresencePayload;
use twilight_model::gateway::payload::outgoing::RequestGuildMembers;
use twilight_model::gateway::presence::{ActivityType, MinimalActivity, Status};
use twilight_model::http::interaction::{InteractionResponse, InteractionResponseData, InteractionResponseType};
use twilight_model::id::marker::{ApplicationMarker, GuildMarker};
use twilight_model::id::Id;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    rustls::crypto::ring::default_provider().install_default().expect("no provider yet");
    let (token, address) = (var("BOT_TOKEN")?, var("BOT_API")?);
    let address = address.trim_start_matches("http://").trim_end_matches("/api/v10").to_owned();
    let http = Client::builder().token(token.clone()).proxy(address, true).ratelimiter(None).build();
    let application = http.current_user_application().await?.model().await?.id;
    let commands = http.interaction(application);
    let option: CommandOption = serde_json::from_value(serde_json::json!({
        "type": CommandOptionType::String, "name": "text", "description": "What to say", "required": true,
    }))?;
    commands.create_global_command().chat_input("ping", "Pong?").command_options(&[option]).await?;
    let total: u32 = var("BOT_SHARDS")?.parse()?;
    let activity = MinimalActivity { kind: ActivityType::Playing, name: "the journey".to_owned(), url: None };
    let config = ConfigBuilder::new(token, Intents::all())
        .proxy_url(var("BOT_GATEWAY")?)
        .presence(UpdatePresencePayload::new([activity.into()], false, None, Status::Idle)?)
        .build();
    let http = Arc::new(http);
    let mut tasks = JoinSet::new();
    for number in 0..total {
        let mut config = ConfigBuilder::from(config.clone());
        if let Some(session) = stored(number) {
            config = config.session(session);
        }
        let shard = Shard::with_config(ShardId::new(number, total), config.build());
        tasks.spawn(run(shard, Arc::clone(&http), application));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Where a shard's session is kept over a restart.
fn place(shard: u32) -> Option<PathBuf> {
    Some(PathBuf::from(var("BOT_SESSIONS").ok()?).join(shard.to_string()))
}

fn stored(shard: u32) -> Option<Session> {
    let text = fs::read_to_string(place(shard)?).ok()?;
    let (sequence, id) = text.split_once(' ')?;
    Some(Session::new(sequence.parse().ok()?, id.to_owned()))
}

fn store(shard: &Shard) -> std::io::Result<()> {
    let (Some(place), Some(session)) = (place(shard.id().number()), shard.session()) else { return Ok(()) };
    let new = place.with_extension("new");
    fs::write(&new, format!("{} {}", session.sequence(), session.id()))?;
    fs::rename(new, place)
}

async fn run(mut shard: Shard, http: Arc<Client>, application: Id<ApplicationMarker>) -> Result<(), Failure> {
    let commands = http.interaction(application);
    let guild: Id<GuildMarker> = Id::new(var("BOT_GUILD")?.parse()?);
    let id = shard.id();
    let mut asked = (guild.get() >> 22) % u64::from(id.total()) != u64::from(id.number());
    let mut members = 0;
    while let Some(event) = shard.next_event(EventTypeFlags::all()).await {
        match event {
            Ok(Event::Ready(_)) => {
                println!(r#"{{"saw":"ready"}}"#);
                if !asked {
                    asked = true;
                    shard.command(&RequestGuildMembers::builder(guild).nonce("members").query("", None));
                }
            }
            Ok(Event::Resumed) => println!(r#"{{"saw":"resumed"}}"#),
            Ok(Event::MemberChunk(chunk)) => {
                members += chunk.members.len();
                if chunk.chunk_index + 1 == chunk.chunk_count {
                    println!(r#"{{"saw":"members","count":{members}}}"#);
                }
            }
            Ok(Event::MessageCreate(message)) => {
                if message.content.starts_with("note ") {
                    println!(r#"{{"saw":"note","text":"{}"}}"#, message.content);
                }
            }
            Ok(Event::InteractionCreate(interaction)) => {
                let Some(InteractionData::ApplicationCommand(command)) = &interaction.data else { continue };
                let CommandOptionValue::String(text) = &command.options[0].value else { continue };
                let answer = InteractionResponse {
                    kind: InteractionResponseType::ChannelMessageWithSource,
                    data: Some(InteractionResponseData {
                        content: Some(format!("pong {text}")),
                        ..InteractionResponseData::default()
                    }),
                };
                // Discord takes no answer after three seconds.
                match commands.create_response(interaction.id, &interaction.token, &answer).await {
                    Ok(_) => println!(r#"{{"saw":"answered","text":"{text}"}}"#),
                    Err(error) => eprintln!("{error:?}"),
                }
            }
            Ok(_) => {}
            Err(error) => eprintln!("{error:?}"),
        }
        store(&shard)?;
    }
    Ok(())
}
