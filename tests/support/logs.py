"""Three unlike logs in layouts that people have: what is in them is drawn, the same in each call.

news      Parquet as EB-NeRD's, a candidate of an impression a row: context, numbers, clicks    behaviors, articles
shop      CSV as REES46's, an event a row: views, carts and purchases, prices; no other table   events
reviews   JSON lines as Amazon's of 2023: ratings, texts, times in milliseconds, list columns   reviews, meta
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[Any]
_SECTIONS = ("nyheder", "sport", "krimi", "kendte", "penge", "musik")
_KINDS = ("electronics.smartphone", "electronics.audio", "appliances.kitchen", "apparel.shoes", "")
_BRANDS = ("samsung", "apple", "xiaomi", "bosch", "lucente", "")
_STORES = ("Hasbro", "LEGO", "Mattel", "Ravensburger", "Melissa & Doug", "Funko")
_SHELVES = ("Puzzles", "Dolls", "Games", "Building Toys", "Arts & Crafts")
_WORDS = ("fun", "sturdy", "bright", "small", "loud", "lovely", "cheap", "broken", "clever", "gift", "kids", "box")


def news(folder: Path, *, users: int = 150, articles: int = 120) -> Path:
    """Impressions of six candidates each in a week of May 2023; what is clicked depends on section and position.

    behaviors.parquet: impression_id, user_id, article_id, impression_time, clicked, position, device_type, read_time,
        scroll_percentage, is_subscriber, gender, session_id.
    articles.parquet: article_id, title, subtitle, body, category (a number), category_str, topics (lists),
        published_time, premium, sentiment_score, url, image_ids (lists), total_inviews.
    """
    random = np.random.default_rng(1)
    section = random.integers(0, len(_SECTIONS), articles)
    begin = pd.Timestamp("2023-05-18 07:00")
    published = begin - pd.to_timedelta(random.integers(60, 10_000, articles), unit="min")
    ids = 9_700_000 + np.arange(articles)
    pd.DataFrame(
        {
            "article_id": ids.astype("int32"),
            "title": [f"{_SECTIONS[s].title()}: {_sentence(random, 5)}" for s in section],
            "subtitle": [_sentence(random, 9) for _ in section],
            "body": [_sentence(random, 40) for _ in section],
            "category": 100 + section,
            "category_str": [_SECTIONS[s] for s in section],
            "topics": [[_SECTIONS[s].title(), *_some(random, _WORDS, 2)] for s in section],
            "published_time": published,
            "premium": random.random(articles) < 0.2,
            "sentiment_score": random.normal(0.5, 0.2, articles).astype("float32"),
            "url": [f"https://example.org/{id}" for id in ids],
            "image_ids": [random.integers(0, 10**6, 2).tolist() for _ in ids],
            "total_inviews": random.integers(100, 10**5, articles),
        }
    ).to_parquet(folder / "articles.parquet", index=False)

    impressions, shown = users * 8, 6
    user = random.permutation(np.repeat(np.arange(users), 8))
    time = begin + pd.to_timedelta(np.sort(random.integers(0, 7 * 86_400, impressions)), unit="s")
    taste, subscribes = random.integers(0, len(_SECTIONS), users), random.random(users) < 0.4
    row, position = np.repeat(np.arange(impressions), shown), np.tile(np.arange(1, shown + 1), impressions)
    article = random.integers(0, articles, len(row))
    clicked = random.random(len(row)) < np.where(section[article] == taste[user[row]], 0.5, 0.1) / np.sqrt(position)
    read = random.lognormal(3, 1, len(row)).round(1)
    pd.DataFrame(
        {
            "impression_id": (150_000 + row).astype("uint32"),
            "user_id": (10_000 + user[row]).astype("uint32"),
            "article_id": ids[article].astype("int32"),
            "impression_time": time[row],
            "clicked": clicked.astype("int8"),
            "position": position.astype("int8"),
            "device_type": random.integers(1, 4, impressions)[row].astype("int8"),
            "read_time": np.where(clicked, read, np.nan),
            "scroll_percentage": np.where(clicked, random.integers(5, 101, len(row)), np.nan),
            "is_subscriber": subscribes[user[row]],
            "gender": pd.array(np.where(user[row] % 3 == 0, None, user[row] % 2), dtype="Int8"),
            "session_id": (user[row] * 100 + row // 12).astype("uint32"),
        }
    ).to_parquet(folder / "behaviors.parquet", index=False)
    return folder


def shop(folder: Path, *, users: int = 250, products: int = 150) -> Path:
    """Views, carts and purchases of two months of 2019, in events.csv: event_time, event_type, product_id, category_id,
    category_code, brand, price, user_id, user_session. What is bought depends on kind and price.
    """
    random = np.random.default_rng(2)
    kind, brand = random.integers(0, len(_KINDS), products), random.integers(0, len(_BRANDS), products)
    price = random.lognormal(4, 1, products)
    taste = random.integers(0, len(_KINDS), users)
    count = users * 18
    user = random.integers(0, users, count)
    product = random.integers(0, products, count)
    likes = kind[product] == taste[user]
    drawn = random.random(count) * np.where(likes, 1, 3) * np.where(price[product] > 80, 1.5, 1)
    event = np.select([drawn < 0.12, drawn < 0.3], ["purchase", "cart"], "view")
    second = np.sort(random.integers(0, 61 * 86_400, count))
    time = pd.Timestamp("2019-10-01") + pd.to_timedelta(second, unit="s")
    paid = price[product] * (1 - 0.1 * (second > 30 * 86_400))
    pd.DataFrame(
        {
            "event_time": time.strftime("%Y-%m-%d %H:%M:%S UTC"),
            "event_type": event,
            "product_id": 1_000_000 + product * 37,
            "category_id": 2_053_013_555_631_882_655 + kind[product],
            "category_code": np.asarray(_KINDS)[kind[product]],
            "brand": np.asarray(_BRANDS)[brand[product]],
            "price": paid.round(2),
            "user_id": 512_000_000 + user * 11,
            "user_session": [f"{u:08x}-{s // 7_200:04x}-4b1e-9c9e" for u, s in zip(user, second, strict=True)],
        }
    ).to_csv(folder / "events.csv", index=False)
    return folder


def reviews(folder: Path, *, users: int = 200, products: int = 120) -> Path:
    """Ratings of toys from 2015 to 2022 with texts; stars depend on store and shelf.

    reviews.jsonl: rating, title, text, images (structs), asin, parent_asin, user_id, timestamp (milliseconds),
        helpful_vote, verified_purchase.
    meta.jsonl: main_category, title, average_rating, rating_number, features, description, categories (lists), price
        (some missing), images (structs), store, details (a struct), parent_asin.
    """
    random = np.random.default_rng(3)
    shelf, store = random.integers(0, len(_SHELVES), products), random.integers(0, len(_STORES), products)
    taste = random.integers(0, len(_SHELVES), users)
    count = users * 16
    user, product = random.integers(0, users, count), random.integers(0, products, count)
    liked = random.random(count) < np.where(shelf[product] == taste[user], 0.9, 0.45)
    stars = np.where(liked, random.integers(4, 6, count), random.integers(1, 4, count))
    begin, end = (int(pd.Timestamp(day).timestamp()) * 1000 for day in ("2015-01-01", "2022-12-31"))
    time = np.sort(random.integers(begin, end, count))
    parents = [f"B0{7_000_000 + 1_234 * p:08d}" for p in range(products)]
    _write(
        folder / "reviews.jsonl",
        [
            {
                "rating": float(stars[i]),
                "title": _sentence(random, 3),
                "text": _sentence(random, 20),
                "images": [{"small_image_url": "https://example.org/s.jpg"}] if i % 9 == 0 else [],
                "asin": parents[product[i]][:-1] + "XYZ"[i % 3],
                "parent_asin": parents[product[i]],
                "user_id": f"AE{user[i]:06d}QZKTO7",
                "timestamp": int(time[i]),
                "helpful_vote": int(random.poisson(0.5)),
                "verified_purchase": bool(random.random() < 0.9),
            }
            for i in range(count)
        ],
    )
    _write(
        folder / "meta.jsonl",
        [
            {
                "main_category": "Toys & Games",
                "title": f"{_STORES[store[p]]} {_sentence(random, 4)}",
                "average_rating": round(float(random.uniform(3, 5)), 1),
                "rating_number": int(random.lognormal(4, 2)),
                "features": [_sentence(random, 8) for _ in range(3)],
                "description": [_sentence(random, 30)] if p % 4 else [],
                "price": round(float(random.lognormal(3, 0.8)), 2) if p % 5 else None,
                "images": [{"thumb": "https://example.org/t.jpg", "variant": "MAIN"}],
                "store": _STORES[store[p]],
                "categories": ["Toys & Games", _SHELVES[shelf[p]]],
                "details": {"Manufacturer": _STORES[store[p]]},
                "parent_asin": parents[p],
            }
            for p in range(products)
        ],
    )
    return folder


def _sentence(random: np.random.Generator, words: int) -> str:
    return " ".join(_WORDS[i] for i in random.integers(0, len(_WORDS), words)).capitalize()


def _some(random: np.random.Generator, among: Sequence[str], most: int) -> list[str]:
    return [among[i] for i in random.permutation(len(among))[: random.integers(0, most + 1)]]


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
