"""Discord's gateway protocol: opcodes, close codes, intents, events, envelope, commands, snowflakes."""
