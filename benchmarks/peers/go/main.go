// A gateway as one would write it in Go: discordgo and amqp091-go, every dispatch published persistent and confirmed.
//
// go API_URL SHARDS AMQP_URI publishes each event's data as it came to the exchange "peers" under the event's name, with
// a message id and shard and seq as headers; confirms are awaited behind the publishing, 1,000 at the most. discordgo
// speaks no stream compression. Its state is off, and its handlers are called by the goroutine that reads.
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"

	"github.com/bwmarrin/discordgo"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Publishes that may wait for their confirms.
const unconfirmed = 1000

func main() {
	api, broker := os.Args[1], os.Args[3]
	shards, err := strconv.Atoi(os.Args[2])
	check(err)
	connection, err := amqp.Dial(broker)
	check(err)
	channel, err := connection.Channel()
	check(err)
	check(channel.ExchangeDeclare("peers", amqp.ExchangeDirect, true, false, false, false, nil))
	check(channel.Confirm(false))
	confirms := make(chan *amqp.DeferredConfirmation, unconfirmed)
	go func() {
		for confirm := range confirms {
			if !confirm.Wait() {
				log.Print("not confirmed")
			}
		}
	}()

	discordgo.EndpointGateway = strings.TrimSuffix(api, "/") + "/gateway/bot"
	for shard := range shards {
		session, err := discordgo.New("Bot " + os.Getenv("DISCORD_TOKEN"))
		check(err)
		session.ShardID, session.ShardCount = shard, shards
		session.Compress = false
		session.StateEnabled = false
		session.SyncEvents = true
		session.Identify.Intents = discordgo.IntentsAll
		session.AddHandler(func(_ *discordgo.Session, event *discordgo.Event) {
			if event.Operation != 0 {
				return
			}
			confirm, err := channel.PublishWithDeferredConfirm("peers", event.Type, false, false, amqp.Publishing{
				ContentType:  "application/json",
				DeliveryMode: amqp.Persistent,
				MessageId:    fmt.Sprintf("%d:%d", shard, event.Sequence),
				Headers:      amqp.Table{"shard": int32(shard), "seq": event.Sequence},
				Body:         event.RawData,
			})
			check(err)
			confirms <- confirm
		})
		check(session.Open())
	}
	select {}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
