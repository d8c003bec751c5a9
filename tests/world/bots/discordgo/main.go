// A bot with discordgo: see tests/world/README.md.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bwmarrin/discordgo"
)

func say(saw string, more map[string]any) {
	line, _ := json.Marshal(more)
	tail := string(line)
	if len(more) == 0 {
		fmt.Printf("{\"saw\":%q}\n", saw)
	} else {
		fmt.Printf("{\"saw\":%q,%s\n", saw, tail[1:])
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	// Its addresses are variables that were put together when the program began: each that is used is set.
	api := os.Getenv("BOT_API") + "/"
	discordgo.EndpointGateway = api + "gateway"
	discordgo.EndpointGatewayBot = api + "gateway/bot"
	discordgo.EndpointApplicationGlobalCommands = func(app string) string { return api + "applications/" + app + "/commands" }
	discordgo.EndpointInteractionResponse = func(id, token string) string {
		return api + "interactions/" + id + "/" + token + "/callback"
	}
	shards, err := strconv.Atoi(os.Getenv("BOT_SHARDS"))
	check(err)
	sessions := make([]*discordgo.Session, shards)
	for shard := range sessions {
		sessions[shard] = open(shard, shards)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	for _, session := range sessions {
		check(session.Close())
	}
}

// A session is one shard.
func open(shard, shards int) *discordgo.Session {
	session, err := discordgo.New("Bot " + os.Getenv("BOT_TOKEN"))
	check(err)
	session.ShardID, session.ShardCount = shard, shards
	session.Identify.Intents = discordgo.IntentsAll | discordgo.IntentMessageContent
	guild, err := strconv.ParseUint(os.Getenv("BOT_GUILD"), 10, 64)
	check(err)
	asked := int(guild>>22)%shards != shard
	// Handlers run side by side: the last chunk may be counted before the first.
	var chunks, members atomic.Int64
	session.AddHandler(func(s *discordgo.Session, ready *discordgo.Ready) {
		say("ready", nil)
		check(s.UpdateStatusComplex(discordgo.UpdateStatusData{
			Status: "idle", Activities: []*discordgo.Activity{{Name: "the journey", Type: discordgo.ActivityTypeGame}},
		}))
		if asked {
			return
		}
		asked = true
		option := &discordgo.ApplicationCommandOption{
			Type: discordgo.ApplicationCommandOptionString, Name: "text", Description: "What to say", Required: true,
		}
		_, err := s.ApplicationCommandBulkOverwrite(ready.User.ID, "", []*discordgo.ApplicationCommand{
			{Name: "ping", Description: "Pong?", Options: []*discordgo.ApplicationCommandOption{option}},
		})
		check(err)
		check(s.RequestGuildMembers(os.Getenv("BOT_GUILD"), "", 0, "members", false))
	})
	session.AddHandler(func(s *discordgo.Session, _ *discordgo.Resumed) { say("resumed", nil) })
	session.AddHandler(func(s *discordgo.Session, chunk *discordgo.GuildMembersChunk) {
		members.Add(int64(len(chunk.Members)))
		if chunks.Add(1) == int64(chunk.ChunkCount) {
			say("members", map[string]any{"count": members.Load()})
		}
	})
	session.AddHandler(func(s *discordgo.Session, message *discordgo.MessageCreate) {
		if strings.HasPrefix(message.Content, "note ") {
			say("note", map[string]any{"text": message.Content})
		}
	})
	session.AddHandler(func(s *discordgo.Session, interaction *discordgo.InteractionCreate) {
		text := interaction.ApplicationCommandData().Options[0].StringValue()
		err := s.InteractionRespond(interaction.Interaction, &discordgo.InteractionResponse{
			Type: discordgo.InteractionResponseChannelMessageWithSource,
			Data: &discordgo.InteractionResponseData{Content: "pong " + text},
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		say("answered", map[string]any{"text": text})
	})
	// Each session takes itself for the only one: Discord lets one identify every five seconds.
	if shard > 0 {
		time.Sleep(5500 * time.Millisecond)
	}
	check(session.Open())
	return session
}
