// A bot with disgo: see tests/world/README.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/disgoorg/disgo"
	"github.com/disgoorg/disgo/bot"
	"github.com/disgoorg/disgo/discord"
	"github.com/disgoorg/disgo/events"
	"github.com/disgoorg/disgo/gateway"
	"github.com/disgoorg/disgo/rest"
	"github.com/disgoorg/disgo/sharding"
	"github.com/disgoorg/snowflake/v2"
)

func say(saw string, more map[string]any) {
	line, _ := json.Marshal(more)
	if len(more) == 0 {
		fmt.Printf("{\"saw\":%q}\n", saw)
	} else {
		fmt.Printf("{\"saw\":%q,%s\n", saw, line[1:])
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The session of a shard, kept over a restart.
type stored struct {
	ID       string
	Sequence int
}

// A shard that goes on with the session that is kept of it, and keeps its own.
func resumable(
	token string, handle gateway.EventHandlerFunc, closed gateway.CloseHandlerFunc, options ...gateway.ConfigOpt,
) gateway.Gateway {
	folder, is := os.LookupEnv("BOT_SESSIONS")
	if !is {
		return gateway.New(token, handle, closed, options...)
	}
	config := gateway.DefaultConfig()
	config.Apply(options)
	place := filepath.Join(folder, strconv.Itoa(config.ShardID))
	if text, err := os.ReadFile(place); err == nil {
		var session stored
		check(json.Unmarshal(text, &session))
		options = append(options, gateway.WithSessionID(session.ID), gateway.WithSequence(session.Sequence))
	}
	var shard gateway.Gateway
	shard = gateway.New(token, func(kind gateway.EventType, sequence int, id int, event gateway.EventData) {
		handle(kind, sequence, id, event)
		if shard.SessionID() == nil || shard.LastSequenceReceived() == nil {
			return
		}
		text, err := json.Marshal(stored{*shard.SessionID(), *shard.LastSequenceReceived()})
		check(err)
		check(os.WriteFile(place+".new", text, 0o600))
		check(os.Rename(place+".new", place))
	}, closed, options...)
	return shard
}

func main() {
	guild := snowflake.MustParse(os.Getenv("BOT_GUILD"))
	shards, err := strconv.Atoi(os.Getenv("BOT_SHARDS"))
	check(err)
	ids := make([]int, shards)
	for id := range ids {
		ids[id] = id
	}
	asked := false
	client, err := disgo.New(os.Getenv("BOT_TOKEN"),
		bot.WithRestClientConfigOpts(rest.WithURL(os.Getenv("BOT_API"))),
		bot.WithShardManagerConfigOpts(
			sharding.WithShardIDs(ids...),
			sharding.WithShardCount(shards),
			sharding.WithAutoScaling(false),
			sharding.WithGatewayConfigOpts(
				gateway.WithURL(os.Getenv("BOT_GATEWAY")),
				gateway.WithIntents(gateway.IntentsAll),
				gateway.WithPresenceOpts(
					gateway.WithPlayingActivity("the journey"), gateway.WithOnlineStatus(discord.OnlineStatusIdle),
				),
			),
			sharding.WithGatewayCreateFunc(resumable),
		),
		bot.WithEventListenerFunc(func(event *events.Ready) {
			say("ready", nil)
			if asked || event.ShardID() != int(uint64(guild)>>22)%shards {
				return
			}
			asked = true
			// The chunks arrive on the connection that this handler holds up.
			go func() {
				members, err := event.Client().MemberChunkingManager().RequestAllMembers(guild)
				check(err)
				say("members", map[string]any{"count": len(members)})
			}()
		}),
		bot.WithEventListenerFunc(func(*events.Resumed) { say("resumed", nil) }),
		bot.WithEventListenerFunc(func(event *events.MessageCreate) {
			if strings.HasPrefix(event.Message.Content, "note ") {
				say("note", map[string]any{"text": event.Message.Content})
			}
		}),
		bot.WithEventListenerFunc(func(event *events.ApplicationCommandInteractionCreate) {
			text := event.SlashCommandInteractionData().String("text")
			if err := event.CreateMessage(discord.MessageCreate{Content: "pong " + text}); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			say("answered", map[string]any{"text": text})
		}),
	)
	check(err)
	option := discord.ApplicationCommandOptionString{Name: "text", Description: "What to say", Required: true}
	_, err = client.Rest().SetGlobalCommands(client.ApplicationID(), []discord.ApplicationCommandCreate{
		discord.SlashCommandCreate{
			Name: "ping", Description: "Pong?", Options: []discord.ApplicationCommandOption{option},
		},
	})
	check(err)
	check(client.OpenShardManager(context.Background()))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	client.Close(context.Background())
}
