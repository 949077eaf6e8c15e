"""How the nano documents say what they say, and how they are asked about it. Each `{}` is a name or a value."""

from cascade.environments.synthetic.story_world import ANIMALS, CITIES, COLOURS, FOODS, JOBS

VALUES = {"city": CITIES, "job": JOBS, "pet": ANIMALS, "colour": COLOURS, "food": FOODS}
SAYS = {
    "city": ("{} lives in {}.", "{} has a house in {}.", "The home of {} is in {}."),
    "job": ("{} works as {}.", "{} is {}.", "The job of {} is {}."),
    "pet": ("{} has {}.", "The pet of {} is {}."),
    "colour": ("{} likes the colour {}.", "The best colour for {} is {}."),
    "food": ("{} likes to eat {}.", "The best food for {} is {}."),
    "age": ("{} is {} years old.", "The age of {} is {}."),
    "day": ("{} was born on a {}.", "{} came to the world on a {}."),
}
ASKS = {
    "city": ("Where does {} live?", "In which city does {} live?", "Which city is the home of {}?"),
    "job": ("What is the job of {}?", "What does {} work as?"),
    "pet": ("Which pet does {} have?", "What animal does {} have?"),
    "colour": ("Which colour does {} like?", "What is the best colour for {}?"),
    "food": ("What does {} like to eat?", "Which food does {} like?"),
    "age": ("How old is {}?", "What is the age of {}?"),
    "day": ("On which day was {} born?", "When was {} born?"),
}
WHO = {
    "city": "who lives in {}",
    "job": "who works as {}",
    "pet": "who has {}",
    "colour": "who likes the colour {}",
    "food": "who likes to eat {}",
}
FILLER = (
    *("The weather is fine today.", "It rained all night.", "The shop opens at nine.", "The old road is closed."),
    *("Many people came to the market.", "The train was late again.", "The children play in the park."),
    *("Dinner is ready at six.", "The river is cold in winter.", "Nobody knows the name of the street."),
    *("The sun was warm and the sky was blue.", "A letter came in the morning.", "The music was too loud."),
    *("All the lights were on.", "The garden is full of flowers.", "The door was open."),
)
OPENINGS = ("Read the text and answer.", "Answer from the text.", "Here is a text.", "Use only this text.")
