//! A bot with twilight: see tests/world/README.md.
use std::env::var;

use twilight_gateway::{ConfigBuilder, Event, EventTypeFlags, Intents, Shard, ShardId, StreamExt as _};
use twilight_http::Client;
use twilight_model::application::command::{CommandOption, CommandOptionType};
use twilight_model::application::interaction::application_command::CommandOptionValue;
use twilight_model::application::interaction::InteractionData;
use twilight_model::gateway::payload::outgoing::RequestGuildMembers;
use twilight_model::http::interaction::{InteractionResponse, InteractionResponseData, InteractionResponseType};
use twilight_model::id::Id;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
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
    let guild = Id::new(var("BOT_GUILD")?.parse()?);
    let config = ConfigBuilder::new(token, Intents::all()).proxy_url(var("BOT_GATEWAY")?).build();
    let mut shard = Shard::with_config(ShardId::ONE, config);
    let (mut asked, mut members) = (false, 0);
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
                commands.create_response(interaction.id, &interaction.token, &answer).await?;
                println!(r#"{{"saw":"answered","text":"{text}"}}"#);
            }
            Ok(_) => {}
            Err(error) => eprintln!("{error:?}"),
        }
    }
    Ok(())
}
