"""Publish a cluster's events with confirms."""
