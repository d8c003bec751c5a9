//! What a gateway proxy does and nothing else: every dispatch of every shard goes on to a client over WebSocket.
//!
//! `proxy GATEWAY_URL SHARDS PORT` takes a connection of the client for each shard, as gateway-proxy does.
//! `ROUTE=direct` (the default) joins a shard to its connection with nothing in between and writes once for all that
//! was ready: the least that it can cost. `ROUTE=queues` goes gateway-proxy's own way: a broadcast channel, a task that
//! puts in a sequence number of the client's own, a queue, a task that writes each message.
//! `THREADS=many` takes tokio's usual runtime instead of the one of a single thread.

use std::{env, error::Error, future::ready};

use futures_util::{SinkExt, StreamExt};
use mimalloc::MiMalloc;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::{broadcast, mpsc},
};
use tokio_websockets::{Limits, Message, ServerBuilder, WebSocketStream};
use twilight_gateway::{ConfigBuilder, Intents, Message as GatewayMessage, Shard, ShardId, queue::InMemoryQueue};
use twilight_model::gateway::event::GatewayEventDeserializer;

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

/// Events that a client may be behind before it loses some; gateway-proxy's default is 100.
const BEHIND: usize = 100_000;

type Client = WebSocketStream<TcpStream>;

/// A dispatch, if that is what it is.
fn dispatch(message: GatewayMessage) -> Option<String> {
    let GatewayMessage::Text(payload) = message else {
        return None;
    };
    let event = GatewayEventDeserializer::from_json(&payload)?;
    (event.op() == 0).then_some(payload)
}

async fn direct(shard: Shard<InMemoryQueue>, client: Client) {
    let (sink, _reads) = client.split();
    let _ = shard
        .filter_map(|received| ready(received.ok().and_then(dispatch).map(|text| Ok(Message::text(text)))))
        .forward(sink)
        .await;
}

async fn queues(mut shard: Shard<InMemoryQueue>, client: Client) {
    let (sender, mut events) = broadcast::channel::<String>(BEHIND);
    let (writer, mut messages) = mpsc::unbounded_channel::<Message>();
    tokio::spawn(async move {
        let (mut sink, _reads) = client.split();
        while let Some(message) = messages.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let (mut sequence, mut digits) = (0u64, itoa::Buffer::new());
        loop {
            match events.recv().await {
                Ok(mut payload) => {
                    if let Some(place) = sequence_of(&payload) {
                        sequence += 1;
                        payload.replace_range(place, digits.format(sequence));
                    }
                    let _ = writer.send(Message::text(payload));
                }
                Err(broadcast::error::RecvError::Lagged(count)) => eprintln!("{count} events lost"),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
    while let Some(received) = shard.next().await {
        if let Some(payload) = received.ok().and_then(dispatch) {
            let _ = sender.send(payload);
        }
    }
}

/// Where the sequence stands in a payload.
fn sequence_of(payload: &str) -> Option<std::ops::Range<usize>> {
    let from = payload.find(r#""s":"#)? + 4;
    let size = payload[from..].find([',', '}'])?;
    Some(from..from + size)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut next = || arguments.next().ok_or("GATEWAY_URL SHARDS PORT");
    let (url, shards, port) = (next()?, next()?.parse::<u32>()?, next()?.parse::<u16>()?);
    let by_queues = env::var("ROUTE").is_ok_and(|route| route == "queues");
    let config = ConfigBuilder::new(env::var("DISCORD_TOKEN")?, Intents::all())
        .proxy_url(url)
        .queue(InMemoryQueue::new(0, 0, std::time::Duration::ZERO, 0))
        .build();
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let mut clients = Vec::new();
    for _ in 0..shards {
        let (plug, _) = listener.accept().await?;
        plug.set_nodelay(true)?;
        let (_, client) = ServerBuilder::new().limits(Limits::unlimited()).accept(plug).await?;
        clients.push(client);
    }
    let mut tasks = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        let shard = Shard::with_config(
            ShardId::new_checked(number as u32, shards).ok_or("no such shard")?,
            config.clone(),
        );
        tasks.push(if by_queues {
            tokio::spawn(queues(shard, client))
        } else {
            tokio::spawn(direct(shard, client))
        });
    }
    for task in tasks {
        task.await?;
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
