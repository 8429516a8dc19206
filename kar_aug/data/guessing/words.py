"""What people call their columns and files, in words: "reviewerID" is (reviewer, id), "parent_asin" (parent, asin)."""

from __future__ import annotations

import re
from collections.abc import Collection

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_]+")

IDS = {"id", "ids", "key", "no", "nr", "number", "code", "hash", "uuid", "guid", "slug", "ref", "reference"}
ENTITY = {
    "user": {
        "user", "users", "reviewer", "customer", "visitor", "member", "client", "account", "buyer", "viewer", "reader",
        "listener", "player", "household", "shopper", "person", "people", "profile", "u", "borrower", "patron",
        "subscriber", "candidate", "applicant", "student", "learner", "guest", "passenger", "traveller", "traveler",
        "donor", "bidder", "seeker", "jobseeker",
    },
    "item": {
        "item", "items", "product", "products", "article", "articles", "movie", "movies", "film", "book", "books",
        "song", "track", "game", "app", "video", "news", "business", "ad", "adgroup", "listing", "content", "goods",
        "post", "recipe", "hotel", "poi", "venue", "place", "offer", "document", "doc", "photo", "podcast", "episode",
        "show", "restaurant", "course", "job", "vacancy", "lesson", "property", "apartment", "meta", "catalog",
        "catalogue", "asin", "sku", "isbn", "i", "creative", "banner", "concert",
    },
}  # fmt: skip
# One word that is an id already.
CODES = {"user": {"uid"}, "item": {"iid", "asin", "sku", "isbn", "gtin", "ean"}}
# The end of a name that is an id where nothing better is: "username", "track_uri".
NAMES = {"user": {"name"}, "item": {"uri", "url"}}
# Of items, words that do not say what they are.
NAMELESS = {"item", "items", "i", "meta", "catalog", "catalogue", "content", *CODES["item"]}
TIMES = {"time", "timestamp", "ts", "date", "dat", "datetime", "at", "day", "created", "when", "unixtime"}
OF_EVENTS = {
    "timestamp",
    "event",
    "impression",
    "click",
    "view",
    "interaction",
    "review",
    "rating",
    "purchase",
    "order",
}
OF_THINGS = {"published", "publish", "modified", "updated", "birth", "release", "released", "expire", "end", "last"}
LABELS = {
    "label", "click", "clicked", "clicks", "target", "converted", "conversion", "purchased", "bought", "liked",
    "applied", "booked", "ordered", "installed", "subscribed", "accepted", "hired", "borrowed", "enrolled",
    "signed", "opened", "answered", "responded", "response", "redeemed", "renewed", "paid", "won", "switched", "joined",
}  # fmt: skip
# Of 0 and 1 that somebody stayed to the end, or that it went well: what a click is where nothing else says it.
COMPLETIONS = {"completed", "completion", "finished", "finish", "ok", "success", "successful", "succeeded", "passed"}
SKIPS = {"skip", "skipped", "dismissed", "rejected", "failed"}  # the contrary, likewise
YES = {"yes", "y", "true", "t", "ja", "oui", "si", "sí", "sim"}
NO = {"no", "n", "false", "f", "nein", "nee", "nej", "non", "não"}
RATINGS = {"rating", "ratings", "stars", "star", "score", "overall", "grade"}
# Beside "score": whose it is, and no person's.
RANKERS = {
    "initial", "model", "ranker", "ranking", "rank", "retrieval", "predicted", "prediction", "pred", "baseline",
}  # fmt: skip
TYPES = {
    "event", "action", "behavior", "behaviour", "interaction", "activity", "feedback", "type", "kind", "verb",
    "reaction", "outcome",
}  # fmt: skip
# Kinds of events, each line wanted more than the next.
WANTED = (
    (
        "purchase", "purchased", "buy", "bought", "order", "transaction", "checkout", "conversion", "sale", "hire",
        "hired", "book", "booked", "booking", "borrow", "borrowed", "enroll", "enrolled", "enrol",
        "subscribe", "subscribed", "donate", "donated",
    ),
    ("cart", "addtocart", "add_to_cart", "add-to-cart", "basket", "add_to_basket", "apply", "applied", "application"),
    ("like", "favorite", "favourite", "fav", "share", "save", "follow", "bookmark", "complete", "completed", "finish"),
    ("click", "play", "watch", "read", "open", "listen", "install"),
    ("view", "pv", "impression", "show", "pageview", "detail_view", "detail"),
)  # fmt: skip
GROUPS = {"impression", "imp", "request", "query", "search", "slate", "pageview", "display"}
SHOWN = {"inview", "shown", "displayed", "candidates", "impression", "impressions", "exposed", "clicked"}
CLICKED = {"clicked", "clicks"}
# What is known before an event, and what only after it.
CONTEXT = {
    "device", "platform", "os", "browser", "app", "page", "country", "region", "city", "locale", "language", "channel",
    "source", "position", "rank", "slot", "daypart", "location", "weather", "referrer", "referer", "campaign",
    "network",
}  # fmt: skip
OUTCOMES = {
    "next", "dwell", "watch", "watched", "played", "playtime", "scroll", "listen", "listened", "completion", "finish",
    "finished", "duration", "seconds", "minutes", "spent", "verified", "revenue", "quantity", "amount", "comment",
    "summary", "reply", "note", "notes", "skip", "skipped", "completed", "returned", "refund", "refunded", "cancelled",
    "canceled", "viewable", "viewability", "viewed", "progress", "bounce", "bounced", "exit", "end", "ended", "stayed",
}  # fmt: skip
# Beside "time", likewise: read_time, time_on_page.
STAYED = {"read", "on", "reading", "viewing"}
LATER = {"helpful", "useful", "funny", "cool", "vote", "votes", "upvotes", "likes", "replies"}
AGGREGATES = {"total", "count", "counts", "avg", "average", "mean", "num", "number", "sum", "n", "rate"}
BEHAVIOUR = {
    "view", "views", "inview", "inviews", "pageview", "pageviews", "click", "clicks", "rating", "ratings", "review",
    "reviews", "vote", "votes", "sale", "sales", "like", "likes", "read", "reads", "play", "plays", "purchase",
    "purchases", "order", "orders", "favorites", "stars", "users", "listeners", "downloads", "installs",
}  # fmt: skip
CATEGORIES = {
    "type", "code", "category", "categories", "class", "gender", "sex", "group", "device", "os", "platform", "segment",
    "city", "zip", "zipcode", "postcode", "region", "country", "status", "kind", "subcategory", "occupation", "brand",
    "genre", "department", "language", "channel",
}  # fmt: skip
TEXTS = {
    "title", "headline", "subtitle", "abstract", "body", "text", "description", "summary", "comment", "content",
    "review", "caption", "synopsis", "plot", "lyrics", "details", "note", "notes",
}  # fmt: skip
ORDERED = {"position", "rank", "slot", "age", "price", "year", "count", "level", "size", "length", "duration", "amount"}
SESSIONS = {"session", "cookie", "ip", "uuid", "hash", "token", "trace", "request", "query", "impression"}
SCENARIOS = {
    "movies": {"movie", "movies", "film", "films", "imdb", "director", "actors", "genre", "genres"},
    "books": {"book", "books", "isbn", "author", "authors", "publisher", "pages"},
    "music": {"song", "songs", "track", "tracks", "artist", "artists", "album", "listen", "playlist"},
    "games": {"game", "games", "developer", "playtime", "steam"},
    "news": {"news", "article", "articles", "headline", "headlines", "abstract", "subtitle"},
    "local-services": {"business", "restaurant", "restaurants", "venue", "hotel", "poi", "checkin", "latitude"},
    "e-commerce": {
        "product", "products", "prod", "sku", "asin", "brand", "price", "cart", "store", "shop", "purchase",
        "transaction", "transactions", "colour", "color", "department",
    },
}  # fmt: skip


def words(name: str) -> tuple[str, ...]:
    """The words of a name, in small letters."""
    return tuple(word.lower() for word in _WORD.findall(name))


def plural(noun: str) -> str:
    """Of a noun that may be one already."""
    if noun.endswith(("s", "people")):
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"


def says(name: str, among: Collection[str]) -> bool:
    """Whether one of its words is among these."""
    return any(word in among for word in words(name))


def says_outcome(name: str) -> bool:
    """Whether a column holds what is known only when an event is over."""
    return says(name, OUTCOMES) or (says(name, {"time"}) and says(name, STAYED))


def rank_as_id(name: str, entity: str) -> int | None:
    """How surely a column holds ids of a "user" or "item" by its name: 0 most; None for no such name."""
    told = words(name)
    if not told:
        return None
    if name == f"{entity}_id":
        return 0
    nouns = ENTITY[entity]
    *before, last = told
    if last in CODES[entity]:
        return 2 if before else 1
    if last in IDS and before and before[-1] in nouns | CODES[entity]:
        return 1 if len(before) == 1 else 2
    if last in NAMES[entity] and before and before[-1] in nouns:
        return 3
    if len(told) > 1:
        return None
    if last.endswith("id") and last[:-2] in nouns:
        return 1
    if any(last == f"{noun}{name}" for noun in nouns for name in NAMES[entity]):
        return 3
    return 2 if last in nouns and len(last) > 1 else None


def rank_as_time(name: str) -> int | None:
    """How surely a column says when an event happened, likewise."""
    told = words(name)
    if not told or not (told[-1] in TIMES or "timestamp" in told):
        return None
    if len(told) == 1:
        return 0
    if told[0] in OF_THINGS:
        return 3
    return 1 if told[0] in OF_EVENTS or "timestamp" in told else 2
