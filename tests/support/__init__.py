"""Servers, processes and prompts that several tests use."""
