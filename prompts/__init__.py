"""Prompts: what the language model is asked about each user and item.

*.toml      scenarios: factors, fields and templates of a domain     validate   their errors, with line and field
scenario    a scenario as an object, which renders entities          templates  sandboxed templates
recipes/    ways of asking, as data                              recipe     a recipe as an object
entities    the prompts of the users and items of some tables        text       values as text that prompts may hold
history     which events of a long history are shown             schema     answers as JSON
summaries   long histories as summaries                          events     the events of histories as rows
"""

from kar_aug.prompts.entities import item_prompts, user_prompts
from kar_aug.prompts.prompt import Message, Prompt
from kar_aug.prompts.recipe import Recipe, recipe_names
from kar_aug.prompts.scenario import Scenario, scenario_names, scenario_text

__all__ = [
    "Message",
    "Prompt",
    "Recipe",
    "Scenario",
    "item_prompts",
    "recipe_names",
    "scenario_names",
    "scenario_text",
    "user_prompts",
]
