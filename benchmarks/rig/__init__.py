"""What the benchmarks stand on: recorded streams, a Discord that replays them, a broker that takes everything."""
