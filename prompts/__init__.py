"""Scenarios: factor lists and templates kept as data, rendered into prompts."""

from kar_aug.prompts.scenario import Message, Prompt, Scenario, item_prompts, user_prompts

__all__ = ["Message", "Prompt", "Scenario", "item_prompts", "user_prompts"]
