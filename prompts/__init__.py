"""Prompts: what the language model is asked about each user and item.

scenarios/  factors, fields and templates of a domain, as data       validate   their errors, with line and field
scenario    a scenario as an object, which renders entities          structure  what their files may say
recipes/    ways of asking, as data                                  templates  sandboxed templates
recipe      a recipe as an object                                    text       values as text that prompts may hold
entities    the prompts of the users and items of some tables        data       the block that shows an entity
histories/  which events of a long history are shown, and how        schema     answers as JSON
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
