//! A gateway as one would write it in Rust: twilight and lapin, every dispatch published persistent and confirmed.
//!
//! `broker GATEWAY_URL SHARDS AMQP_URI` publishes the whole payload as it came to the exchange `peers` under the event's
//! name, with a message id and shard and seq as headers; confirms are awaited behind the publishing, 1,000 at the most.
//! `THREADS=many` takes tokio's usual runtime instead of the one of a single thread; lapin has a thread of its own.

use std::{env, error::Error};

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use mimalloc::MiMalloc;
use tokio::{runtime::Builder, sync::mpsc};
use twilight_gateway::{ConfigBuilder, Intents, Message, Shard, ShardId, queue::InMemoryQueue};
use twilight_model::gateway::event::GatewayEventDeserializer;

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

/// Publishes that may wait for their confirms.
const UNCONFIRMED: usize = 1000;
const PERSISTENT: u8 = 2;

async fn publish(
    mut shard: Shard<InMemoryQueue>,
    channel: Channel,
    confirms: mpsc::Sender<PublisherConfirm>,
) -> Result<(), lapin::Error> {
    let number = shard.id().number();
    let exchange = ShortString::from("peers");
    let content_type = ShortString::from("application/json");
    while let Some(received) = shard.next().await {
        let Ok(Message::Text(payload)) = received else {
            continue;
        };
        let Some((0, Some(sequence), Some(name))) =
            GatewayEventDeserializer::from_json(&payload).map(GatewayEventDeserializer::into_parts)
        else {
            continue;
        };
        let mut headers = FieldTable::default();
        headers.insert("shard".into(), AMQPValue::LongUInt(number));
        headers.insert("seq".into(), AMQPValue::LongLongInt(sequence as i64));
        let properties = BasicProperties::default()
            .with_content_type(content_type.clone())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(format!("{number}:{sequence}").into())
            .with_headers(headers);
        let confirm = channel
            .basic_publish(
                exchange.clone(),
                name.as_ref().into(),
                BasicPublishOptions::default(),
                payload.as_bytes(),
                properties,
            )
            .await?;
        if confirms.send(confirm).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut next = || arguments.next().ok_or("GATEWAY_URL SHARDS AMQP_URI");
    let (url, shards, broker) = (next()?, next()?.parse::<u32>()?, next()?);
    let connection = Connection::connect(&broker, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .exchange_declare("peers".into(), ExchangeKind::Direct, durable, FieldTable::default())
        .await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let config = ConfigBuilder::new(env::var("DISCORD_TOKEN")?, Intents::all())
        .proxy_url(url)
        .queue(InMemoryQueue::new(0, 0, std::time::Duration::ZERO, 0))
        .build();
    let (sender, mut confirms) = mpsc::channel::<PublisherConfirm>(UNCONFIRMED);
    for number in 0..shards {
        let shard = Shard::with_config(
            ShardId::new_checked(number, shards).ok_or("no such shard")?,
            config.clone(),
        );
        tokio::spawn(publish(shard, channel.clone(), sender.clone()));
    }
    drop(sender);
    while let Some(confirm) = confirms.recv().await {
        if !matches!(confirm.await?, Confirmation::Ack(_)) {
            eprintln!("not confirmed");
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let many = env::var("THREADS").is_ok_and(|threads| threads == "many");
    let mut builder = if many {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    builder.enable_all().build()?.block_on(run())
}
