"""A stateful Discord gateway that publishes every event of a bot to RabbitMQ."""

__version__ = "0.3.0"
