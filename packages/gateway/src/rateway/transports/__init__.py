"""One file per outside thing: websocket, AMQP, REST, files. asyncio begins here."""
