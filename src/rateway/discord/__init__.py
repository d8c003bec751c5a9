"""Discord's words: opcodes, close codes, intents, events, the envelope, commands, snowflakes. Imports nothing of ours."""
