"""Discord's words: opcodes, close codes, intents, events, envelope, commands, snowflakes. Imports nothing of ours."""
