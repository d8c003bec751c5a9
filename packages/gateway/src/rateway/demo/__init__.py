"""The demonstration: a private RabbitMQ, the simulated Discord, the gateway and workers, audited at the end."""
