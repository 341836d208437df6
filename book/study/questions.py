"""Ten questions that have nothing to do with emotion, to see what a language model still answers, and sentences to read to it.

Written for this package. Each question comes with what a right answer contains, in small letters.
"""

QUESTIONS = (
    ("What is the capital of France?", "paris"),
    ("How many days are in a week?", "seven|7"),
    ("What colour do you get if you mix blue and yellow?", "green"),
    ("Which animal says meow?", "cat"),
    ("Who wrote Romeo and Juliet?", "shakespeare"),
    ("What is two plus three?", "five|5"),
    ("What is the opposite of hot?", "cold"),
    ("On which continent is Egypt?", "africa"),
    ("What is frozen water called?", "ice"),
    ("Which planet is the largest?", "jupiter"),
)

GENERAL = (
    "The bus to the station leaves at ten past eight.",
    "Boil the potatoes for twenty minutes and add a pinch of salt.",
    "The river rises in the mountains and flows into the North Sea.",
    "To open the file, click on its name in the list on the left.",
    "The museum is closed on Mondays and free on the first Sunday of the month.",
    "Water expands when it freezes, which is why pipes burst in winter.",
    "The committee will meet again in March to discuss the budget.",
    "A triangle with three equal sides has three equal angles.",
    "He painted the kitchen walls white and hung a clock above the door.",
    "The bridge was built in 1897 and carries two lanes of traffic.",
    "Turn left at the church and follow the road to the lake.",
    "The recipe needs three eggs, a cup of flour and a little butter.",
)


def right(answer: str, wanted: str) -> bool:
    """Whether an answer contains one of the words that a question wants."""
    return any(word in answer.lower() for word in wanted.split("|"))
