import java.util.EnumSet;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import net.dv8tion.jda.api.OnlineStatus;
import net.dv8tion.jda.api.entities.Activity;
import net.dv8tion.jda.api.entities.Guild;
import net.dv8tion.jda.api.entities.Member;
import net.dv8tion.jda.api.events.interaction.command.SlashCommandInteractionEvent;
import net.dv8tion.jda.api.events.message.MessageReceivedEvent;
import net.dv8tion.jda.api.events.session.ReadyEvent;
import net.dv8tion.jda.api.events.session.SessionRecreateEvent;
import net.dv8tion.jda.api.events.session.SessionResumeEvent;
import net.dv8tion.jda.api.hooks.ListenerAdapter;
import net.dv8tion.jda.api.interactions.commands.OptionType;
import net.dv8tion.jda.api.interactions.commands.build.Commands;
import net.dv8tion.jda.api.requests.GatewayIntent;
import net.dv8tion.jda.api.requests.RestConfig;
import net.dv8tion.jda.api.sharding.DefaultShardManagerBuilder;
import net.dv8tion.jda.api.sharding.ShardManager;
import net.dv8tion.jda.api.utils.ConcurrentSessionController;
import net.dv8tion.jda.api.utils.MemberCachePolicy;

/** A bot with JDA: see tests/world/README.md. */
public final class Bot extends ListenerAdapter {
    private final AtomicBoolean asked = new AtomicBoolean();

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    @Override
    public void onReady(ReadyEvent event) {
        say("{\"saw\":\"ready\"}");
        Guild guild = event.getJDA().getGuildById(System.getenv("BOT_GUILD"));
        if (guild == null || asked.getAndSet(true)) return;
        event.getJDA().updateCommands()
            .addCommands(Commands.slash("ping", "Pong?").addOption(OptionType.STRING, "text", "What to say", true))
            .queue();
        guild.loadMembers().onSuccess((List<Member> members) ->
            say("{\"saw\":\"members\",\"count\":" + members.size() + "}"));
    }

    @Override
    public void onSessionRecreate(SessionRecreateEvent event) {
        say("{\"saw\":\"ready\"}");
    }

    @Override
    public void onSessionResume(SessionResumeEvent event) {
        say("{\"saw\":\"resumed\"}");
    }

    @Override
    public void onMessageReceived(MessageReceivedEvent event) {
        String text = event.getMessage().getContentRaw();
        if (text.startsWith("note ")) say("{\"saw\":\"note\",\"text\":\"" + text + "\"}");
    }

    @Override
    public void onSlashCommandInteraction(SlashCommandInteractionEvent event) {
        String text = event.getOption("text").getAsString();
        event.reply("pong " + text).queue(done -> say("{\"saw\":\"answered\",\"text\":\"" + text + "\"}"));
    }

    public static void main(String[] arguments) {
        String gateway = System.getenv("BOT_GATEWAY");
        ShardManager shards = DefaultShardManagerBuilder
            .createDefault(System.getenv("BOT_TOKEN"), EnumSet.allOf(GatewayIntent.class))
            .setShardsTotal(Integer.parseInt(System.getenv("BOT_SHARDS")))
            .setMemberCachePolicy(MemberCachePolicy.ALL)
            .setStatus(OnlineStatus.IDLE)
            .setActivity(Activity.playing("the journey"))
            .setRestConfigProvider(shard -> new RestConfig().setBaseUrl(System.getenv("BOT_API") + "/"))
            // The builder's base URL is for REST alone.
            .setSessionController(new ConcurrentSessionController() {
                @Override
                public String getGateway() {
                    return gateway;
                }
            })
            .addEventListeners(new Bot())
            .build();
        Runtime.getRuntime().addShutdownHook(new Thread(shards::shutdown));
    }
}
