"""What people of the nano world ask in everyday talk, and what there is to say: topics, conditions, courtesies."""

from dataclasses import dataclass

FAMILY = ("sister", "brother", "mother", "father", "friend", "son", "daughter", "teacher")


@dataclass(frozen=True)
class Topic:
    """Its texts have slots in braces, filled alike in a whole conversation."""

    goal: str
    """Completes `The user wants …`."""
    asks: tuple[str, ...]
    openings: tuple[str, ...]
    ideas: tuple[str, ...]
    """What helps, in the order in which it is said."""
    short: str
    """What somebody says who does not care."""


def _topic(goal: str, asks: str, openings: str, ideas: str, short: str) -> Topic:
    return Topic(goal, tuple(asks.split(" | ")), tuple(openings.split(" | ")), tuple(ideas.split(" | ")), short)


TOPICS = (
    _topic("a gift for the {family}",
           "What can I give my {family} on {day}? | I need a gift for my {family}. | Can you think of a gift for my "
           "{family}?",
           "How kind of you to think of your {family}! | A gift for your {family} is a lovely plan.",
           "You could give {thing_a}. | A good {thing} makes people happy. | You could bake a cake. | Write a warm "
           "letter to go with the gift. | Some fresh flowers are always nice.",
           "A {thing}."),
    _topic("something to cook",
           "What can I cook with {food}? | Please give me an idea for dinner with {food}. | I want to make something "
           "with {food}. How?",
           "I love to help with dinner! | {Food} is a good start.",
           "Heat the {food} with a little oil. | Add salt and some fresh herbs. | It goes well with a green salad. | "
           "Serve the {food} warm. | Cook it slowly for ten minutes.",
           "Heat the {food}."),
    _topic("help with sleep",
           "I cannot sleep at night. What can I do? | How can I sleep better? | Please help, I sleep so badly.",
           "I am sorry that you sleep badly. | A bad night is hard, but some things help.",
           "Go to bed at the same hour every night. | Put your phone away before bed. | A warm drink can help. | Keep "
           "the room dark and cool. | A short walk in the evening is good for sleep.",
           "Go to bed early."),
    _topic("comfort",
           "I feel sad because my {animal} is ill. | My {animal} ran away and I am sad. | I had a bad day with my "
           "{animal}.",
           "I am so sorry about your {animal}. | That must be hard for you, and I am sorry.",
           "It shows how much you love your {animal}. | Talk with a friend about it. | A good doctor for animals can "
           "help your {animal}. | Be kind to yourself today. | I hope that your {animal} is well again soon.",
           "That happens."),
    _topic("a plan for {city}",
           "I am going to {city} on {day}. What can I do there? | What is there to see in {city}? | Please plan a day "
           "in {city} for me.",
           "{city} is a lovely city to see! | A day in {city} sounds great.",
           "Start with a walk in the old part of {city}. | Have lunch in a small place by the river. | See a museum in "
           "the afternoon. | Go up a tower and look over {city}. | End the day with some {food}.",
           "Walk around."),
    _topic("an invitation",
           "Write a short message to {name}: come to my party on {day}. | Please invite {name} to my party on {day}. | "
           "How do I ask {name} to come on {day}?",
           "Here is a message for {name}. | You could write this to {name}.",
           "Dear {name}, please come to my party on {day}! | We start at six in the evening. | There will be {food} "
           "and music. | I would be so happy to see you on {day}. | Bring a friend if you like.",
           "Come on {day}."),
    _topic("words of thanks",
           "{name} gave me {thing_a}. How do I say thanks? | Write a thank you note to {name} for the {thing}. | I "
           "want to thank {name} for the {thing}.",
           "Here is a thank you note. | It is kind to thank {name}.",
           "Dear {name}, thank you so much for the {thing}! | I use the {thing} every day. | You made me very happy. | "
           "I hope to see you on {day}. | The {thing} is just what I needed.",
           "Thanks."),
    _topic("to say sorry",
           "I lost the {thing} of {name}. What do I say? | Help me say sorry to {name} about the {thing}. | I broke "
           "the {thing} of {name}.",
           "It is brave to say sorry to {name}. | Say it simply and mean it.",
           "Tell {name} that you are sorry about the {thing}. | Offer to buy a new {thing}. | Say that it will not "
           "happen again. | Listen to how {name} feels. | Do it today and do not wait.",
           "Say sorry."),
    _topic("help to learn",
           "I have a test on {day}. How should I learn for it? | How can I learn better for school? | My test is on "
           "{day} and I know nothing.",
           "You can do this! | Good that you ask before {day}.",
           "Make a plan and learn a little every day. | Write the main points on small cards. | Ask {name} to test "
           "you. | Take a short break each hour. | Sleep well on the night before {day}.",
           "Read the book."),
    _topic("to know about a pet",
           "How do I look after {animal_a}? | I just got {animal_a}. What does it need? | Is {animal_a} a good pet?",
           "How nice that you ask about the {animal}! | {Animal_a} can be a good friend.",
           "Give your {animal} fresh water every day. | {Animal_a} needs good food and a clean place. | Let your "
           "{animal} move around a lot. | See a doctor for animals once a year. | Be calm and kind to it.",
           "Feed it."),
    _topic("help with a cold",
           "I have a cold. What helps? | My head hurts and my nose is full. What can I do? | My {family} has a cold.",
           "I am sorry to hear about the cold. | A cold is no fun, but it will pass.",
           "Rest and keep warm. | Drink a lot of water or tea. | Some hot soup is good. | See a doctor if it lasts "
           "longer than a week. | Fresh air in the room helps.",
           "Rest."),
    _topic("to clean up",
           "My room is full of things. How do I clean it? | How do I keep my house clean? | Please help me tidy up "
           "before {day}.",
           "A clean room feels so good! | Let us make it easy.",
           "Start with one corner. | Give away what you do not need. | Put each {thing} back in its place. | Open the "
           "window and play some music. | Do ten minutes every day.",
           "Just clean."),
    _topic("something to do",
           "I am bored. What can I do on {day}? | What can I do with my {family} on {day}? | Give me an idea for a "
           "free day.",
           "A free {day} is a gift! | There are many nice things to do.",
           "Go for a walk in the park. | Call {name} and have tea. | Read a good book. | Cook {food} with your "
           "{family}. | Draw a picture of {animal_a}.",
           "Go out."),
    _topic("to find a friend",
           "I am new in {city} and know nobody. | How do I find friends in {city}? | I feel alone in {city}.",
           "Being new in {city} is not easy. | Many people in {city} feel as you do.",
           "Join a club for something you like. | Say hello to the people next door. | Ask someone at work to have "
           "lunch. | Help out at a place near you. | Give it time and be open.",
           "Go out more."),
    _topic("a name for a pet",
           "What should I call my new {animal}? | I need a name for {animal_a}. | Can you name my {animal}?",
           "A new {animal}, how lovely! | Here are some names for your {animal}.",
           "{name} is a fine name. | Choose a short name, so that it learns it fast. | You could name it after its "
           "colour. | Ask your {family} for an idea as well. | Say the name aloud and see how it sounds.",
           "{name}."),
    _topic("to share good news",
           "I got a new job in {city}! | I won first place on {day}! | My {family} has a new baby!",
           "That is great news! | How wonderful, I am happy for you!",
           "You must be very happy. | Tell {name} about it as well. | You should have some cake on {day}. | Enjoy "
           "every minute of it. | I wish you all the best.",
           "OK."),
)  # fmt: skip

# What a user adds about themselves, and the sentence that shows that it was heard.
CONDITIONS = (
    ("I have very little time.", "All of this is quick, as you have little time."),
    ("I have no money.", "None of this costs much money."),
    ("It is raining here.", "The rain should not stop you."),
    ("I am very tired.", "You are tired, so take it slowly."),
    ("I am new at this.", "You are new at this, so start small."),
    ("I am alone today.", "It also works when you are alone."),
)
GREETINGS = ("Hello!", "Hi.", "Good morning.", "Hey there.", "Hi, I am {name2}.", "My name is {name2}.", "A question:")
TAILS = ("Please help.", "Thank you!", "What do you think?", "Can you help me?", "Please be kind.", "I need your help.")
CLOSINGS = ("I hope this helps!", "Tell me how it went.", "Ask me if you need more.", "Good luck!", "Have a nice day!")
PADDING = (
    *("Well, that is a very, very good question.", "As I said before, there is a lot to say about this."),
    *("There are many ways to look at it, and many people have many ideas.", "It is what it is, as people say."),
    *("I could go on and on about this for a long time.", "To say it again in other words, I say it again."),
)
MORE = ("Do you have one more idea?", "What else?", "Thanks. Anything more?", "Good. Is there more I can do?")
