"""Four folders of files as strangers bring them, in which taste stands in titles alone: what afternoons.py starts from.

Each item is of one topic, and its title is of that topic's words; each user likes two topics. No column but the title
tells topics apart, and there are so few events that ids hardly do. What happened in a log follows the titles, with the
traps that real logs have: seconds of a session that are long because of a click, a cart forty seconds before the
purchase, purchases without anything that was not bought, stars beside what was written of them.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

TOPICS: Mapping[str, tuple[str, ...]] = {
    "sailing": ("yacht", "harbour", "regatta", "keel", "anchor", "skipper", "rigging", "tide"),
    "baking": ("sourdough", "oven", "flour", "pastry", "yeast", "dough", "cinnamon", "crust"),
    "astronomy": ("telescope", "comet", "galaxy", "orbit", "nebula", "eclipse", "meteor", "planet"),
    "gardening": ("roses", "compost", "seedlings", "pruning", "greenhouse", "tulips", "orchard", "hedge"),
    "chess": ("gambit", "checkmate", "endgame", "grandmaster", "pawn", "rook", "castling", "knight"),
    "cycling": ("peloton", "bicycle", "saddle", "velodrome", "pedals", "handlebar", "sprint", "tandem"),
    "jazz": ("saxophone", "trumpet", "swing", "quartet", "bebop", "trombone", "ballad", "improvisation"),
    "the middle ages": ("castle", "siege", "monastery", "crusade", "abbey", "armour", "squire", "heraldry"),
}
_TOPIC_OF = {word: topic for topic, words in TOPICS.items() for word in words}
_DAYS = 30
_START = pd.Timestamp("2026-03-01").value // 10**9
Random = np.random.Generator


class World:
    """Users, items and whom which suits: `suits` of shape (users, items), booleans."""

    def __init__(self, random: Random, users: int, items: int, kind: str) -> None:
        self.random, self.users, self.items = random, users, items
        topics = random.integers(len(TOPICS), size=items)
        words = [random.choice(list(TOPICS.values())[topic], 3, replace=False) for topic in topics]
        self.titles = [" ".join([*drawn, kind]).capitalize() for drawn in words]
        liked = random.random((users, len(TOPICS))).argsort(axis=1)[:, :2]
        self.suits = (liked[:, :, None] == topics).any(axis=1)

    def times(self, events: int) -> npt.NDArray[np.int64]:
        """(users, events) seconds, each user's in order."""
        drawn = self.random.integers(_DAYS * 86_400, size=(self.users, events))
        return _START + np.sort(drawn, axis=1)


def says(prompt: str) -> str:
    """What a language model would: what the titles in a prompt have in common, by the topics of their words."""
    words = prompt.lower().replace(",", " ").replace('"', " ").split()
    found = Counter(_TOPIC_OF[word] for word in words if word in _TOPIC_OF)
    told = [f"{topic}: {', '.join(TOPICS[topic])}" for topic, _ in found.most_common(2)]
    return f"This is about {'; and about '.join(told)}." if told else "Nothing is known of it."


def news(folder: Path, random: Random, users: int) -> None:
    """Impressions with lists of six articles, the device, and how long the session was."""
    world = World(random, users, 3 * users // 10, "report")
    times, rows = world.times(8), []
    for user, visits in enumerate(times):
        for at in visits:
            shown = random.choice(world.items, 6, replace=False)
            clicked = shown[random.random(6) < np.where(world.suits[user, shown], 0.45, 0.06)]
            rows.append((user, at, shown.tolist(), clicked.tolist()))
    frame = pd.DataFrame(rows, columns=["user_id", "time", "impression_items", "clicked_items"])
    frame["time"] = pd.to_datetime(frame["time"], unit="s")
    frame["device"] = random.choice(["phone", "tablet", "desktop"], len(frame))
    frame["session_seconds"] = (random.exponential(30, len(frame)) + 60 * frame["clicked_items"].map(len)).round(1)
    frame.to_parquet(folder / "impressions.parquet", index=False)
    articles = pd.DataFrame({"article_id": range(world.items), "title": world.titles})
    articles.assign(words=random.integers(200, 2000, world.items)).to_parquet(folder / "articles.parquet", index=False)


def shop(folder: Path, random: Random, users: int) -> None:
    """Views, carts and purchases, compressed; a table of products in tabs."""
    world = World(random, users, 3 * users // 10, "set")
    times, rows = world.times(24), []
    for user, visits in enumerate(times):
        for at in visits:
            item = int(random.integers(world.items))
            rows.append((at, "view", item, user))
            if random.random() < (0.5 if world.suits[user, item] else 0.05):
                rows.append((at + 60, "cart", item, user))
                if random.random() < 0.6:
                    rows.append((at + 100, "purchase", item, user))
    frame = pd.DataFrame(rows, columns=["event_time", "event_type", "product_id", "user_id"])
    prices, brands = random.lognormal(3, 0.6, world.items).round(2), random.choice(["Aro", "Belo", "Cima"], world.items)
    frame["brand"], frame["price"] = brands[frame["product_id"]], prices[frame["product_id"]]
    frame["event_time"] = pd.to_datetime(frame["event_time"], unit="s").dt.strftime("%Y-%m-%d %H:%M:%S UTC")
    frame.to_csv(folder / "events.csv.gz", index=False)
    products = pd.DataFrame({"product_id": range(world.items), "title": world.titles})
    products.to_csv(folder / "products.tsv", index=False, sep="\t")


def wardrobe(folder: Path, random: Random, users: int) -> None:
    """Purchases alone: of what was seen and not bought there is nothing."""
    world = World(random, users, 3 * users // 10, "shirt")
    times, bought = world.times(15), []
    popular = 1 / (np.arange(world.items) + 20)
    for user in range(users):
        wanted = popular * np.where(world.suits[user], 1.0, 0.08)
        bought.append(random.choice(world.items, 15, replace=False, p=wanted / wanted.sum()))
    frame = pd.DataFrame({"t_dat": times.ravel(), "customer_id": np.repeat(np.arange(users), 15)})
    frame["t_dat"] = pd.to_datetime(frame["t_dat"], unit="s").dt.strftime("%Y-%m-%d")
    frame["customer_id"] = [f"{customer:08x}" for customer in frame["customer_id"]]
    frame["article_id"] = [f"{article:010d}" for article in np.concatenate(bought)]
    frame["price"] = random.lognormal(3, 0.4, world.items).round(2)[np.concatenate(bought)]
    frame["sales_channel_id"] = random.integers(1, 3, len(frame))
    frame.to_csv(folder / "transactions.csv", index=False)
    ids = [f"{article:010d}" for article in range(world.items)]
    pd.DataFrame({"article_id": ids, "prod_name": world.titles}).to_csv(folder / "articles.csv", index=False)
    customers = pd.DataFrame({"customer_id": [f"{c:08x}" for c in range(users)], "age": random.integers(18, 80, users)})
    customers.assign(club=random.choice(["ACTIVE", "PRE-CREATE"], users)).to_csv(folder / "customers.csv", index=False)


def reviews(folder: Path, random: Random, users: int) -> None:
    """Stars with texts, as JSON lines; a file of what was reviewed."""
    world = World(random, users, 3 * users // 10, "book")
    told = {1: "A waste.", 2: "Not for me.", 3: "It is all right.", 4: "I liked it.", 5: "Could not put it down!"}
    with gzip.open(folder / "reviews.jsonl.gz", "wt", encoding="utf-8") as lines:
        for user, moments in enumerate(world.times(12)):
            for at in moments:
                item = int(random.integers(world.items))
                stars = int(np.clip(round(random.normal(4.3 if world.suits[user, item] else 2.6, 0.9)), 1, 5))
                row = {"rating": float(stars), "text": told[stars], "parent_asin": f"B{item:09d}"}
                row |= {"user_id": f"A{user:06d}", "timestamp": int(at) * 1000, "verified_purchase": bool(user % 3)}
                lines.write(json.dumps(row) + "\n")
    with (folder / "meta.jsonl").open("w", encoding="utf-8") as lines:
        for item, title in enumerate(world.titles):
            price = round(float(random.lognormal(2.5, 0.4)), 2) if item % 4 else None
            lines.write(json.dumps({"parent_asin": f"B{item:09d}", "title": title, "price": price}) + "\n")


FOLDERS: Mapping[str, Callable[[Path, Random, int], None]] = {
    "news": news,
    "shop": shop,
    "wardrobe": wardrobe,
    "reviews": reviews,
}
