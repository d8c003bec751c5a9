"""A stateful Discord gateway that publishes every event of a bot to RabbitMQ."""

from rateway import form

__version__ = "0.3.0"

form.heed_wish()
