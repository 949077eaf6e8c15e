"""The small world that nano tasks talk about: few words, many combinations, true facts only."""

NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Henry",
    "Ida",
    "Jack",
    "Kate",
    "Leo",
    "Maria",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tina",
    "Victor",
]

FRUITS = ["apple", "banana", "cherry", "grape", "lemon", "melon", "orange", "peach", "pear", "plum"]
VEGETABLES = ["bean", "cabbage", "carrot", "corn", "onion", "pea", "pepper", "potato", "pumpkin", "spinach"]
ANIMALS = [
    "bear",
    "cat",
    "cow",
    "dog",
    "duck",
    "fox",
    "goat",
    "horse",
    "lion",
    "mouse",
    "pig",
    "rabbit",
    "sheep",
    "tiger",
    "wolf",
]
TOOLS = ["axe", "brush", "drill", "hammer", "ladder", "rake", "rope", "saw", "shovel", "wrench"]
CLOTHES = ["belt", "coat", "dress", "glove", "hat", "scarf", "shirt", "shoe", "skirt", "sock"]
FURNITURE = ["bed", "bench", "chair", "desk", "lamp", "mirror", "shelf", "sofa", "stool", "table"]
VEHICLES = ["bike", "boat", "bus", "car", "plane", "ship", "taxi", "train", "tram", "truck"]
COLORS = ["black", "blue", "brown", "green", "grey", "pink", "purple", "red", "white", "yellow"]
INSTRUMENTS = ["bell", "cello", "drum", "flute", "guitar", "harp", "horn", "piano", "trumpet", "violin"]
JOBS = ["baker", "doctor", "driver", "farmer", "judge", "nurse", "painter", "pilot", "singer", "teacher"]
CATEGORIES: dict[str, list[str]] = {
    "fruit": FRUITS,
    "vegetable": VEGETABLES,
    "animal": ANIMALS,
    "tool": TOOLS,
    "piece of clothing": CLOTHES,
    "piece of furniture": FURNITURE,
    "vehicle": VEHICLES,
    "color": COLORS,
    "instrument": INSTRUMENTS,
    "job": JOBS,
}

CITY_COUNTRY: dict[str, str] = {
    "Paris": "France",
    "Lyon": "France",
    "Berlin": "Germany",
    "Munich": "Germany",
    "Rome": "Italy",
    "Milan": "Italy",
    "Madrid": "Spain",
    "Seville": "Spain",
    "Lisbon": "Portugal",
    "Porto": "Portugal",
    "Tokyo": "Japan",
    "Osaka": "Japan",
    "Cairo": "Egypt",
    "Luxor": "Egypt",
    "Oslo": "Norway",
    "Bergen": "Norway",
    "Delhi": "India",
    "Mumbai": "India",
    "Toronto": "Canada",
    "Ottawa": "Canada",
}
CITIES = list(CITY_COUNTRY)
COUNTRIES = list(dict.fromkeys(CITY_COUNTRY.values()))

OPPOSITES: list[tuple[str, str]] = [
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("old", "new"),
    ("high", "low"),
    ("wet", "dry"),
    ("dark", "light"),
    ("full", "empty"),
    ("hard", "soft"),
    ("open", "closed"),
    ("early", "late"),
    ("rich", "poor"),
    ("near", "far"),
    ("loud", "quiet"),
    ("strong", "weak"),
    ("happy", "sad"),
]

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


def plural(noun: str) -> str:
    """The plural of the vocabulary's nouns."""
    irregular = {"mouse": "mice", "sheep": "sheep", "wolf": "wolves", "shelf": "shelves", "scarf": "scarves"}
    if noun.startswith("piece of "):
        return "pieces" + noun.removeprefix("piece")
    if noun in irregular:
        return irregular[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "sh", "ch", "potato")) else "s")


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
