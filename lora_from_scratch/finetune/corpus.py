"""A small emotion corpus of our own, for when the real one is not available.

Four thousand first-person sentences over the six labels of dair-ai/emotion, written by a grammar.
No sentence comes from that dataset. What a model scores here says nothing about real English: it
only shows that the code works, so say where it comes from when you print such a score.
"""

from random import Random

LABEL_NAMES = ("sadness", "joy", "love", "anger", "fear", "surprise")

# In thousandths, about the real dataset's, so that a rare class is rare here too.
SHARES = (290, 335, 80, 135, 120, 40)
SIZES = {"train": 3200, "validation": 400, "test": 400}

# In every list below "/" separates the entries, and what follows "||" is never used for train.
# Emotion words. Each fits after "i am", "i feel", "so" and "my sister looks".
WORDS = {
    "sadness": """sad / unhappy / miserable / heartbroken / lonely / gloomy / hopeless / dejected /
        tearful / downhearted / wretched / despondent || sorrowful / forlorn / depressed""",
    "joy": """happy / glad / cheerful / delighted / thrilled / joyful / elated / content / pleased /
        overjoyed / upbeat / ecstatic || jubilant / blissful / gleeful""",
    "love": """in love / smitten / head over heels / loving / affectionate / devoted / besotted /
        romantic / full of love / full of tenderness || infatuated / enamoured / lovestruck""",
    "anger": """angry / furious / livid / annoyed / irritated / enraged / outraged / resentful /
        cross / indignant / exasperated / bad tempered || irate / infuriated / incensed""",
    "fear": """afraid / scared / frightened / terrified / anxious / nervous / worried / uneasy /
        panicky / apprehensive / petrified / jittery || fearful / on edge / spooked""",
    "surprise": """surprised / amazed / astonished / stunned / startled / taken aback / astounded /
        dumbfounded / shocked / flabbergasted || staggered / gobsmacked / thunderstruck""",
}

# Events that say the emotion without naming it, all in the past so that "i dreamt that" fits too.
EVENTS = {
    "sadness": """my old dog died in my arms / i failed the course i had given up everything for /
        nobody came to my birthday dinner / they turned me down for the tenth job this month /
        we buried my grandmother / my only friend here moved to the other side of the world /
        my partner of nine years moved out / my best friend stopped answering my letters /
        i had to sell the house i grew up in / the roses my late wife planted withered /
        i came home to an empty flat again / i ate alone at the big table again /
        i found the last voice message my brother ever left me / my children forgot my birthday ||
        i laid two places at the table out of habit / the vet said my cat would not wake again /
        i watched the van take my late mothers piano away / nobody wanted me in their team""",
    "joy": """i passed the exam with the best marks in my year / i paid off the last of my debts /
        our team won the cup / the sun came out and we played on the beach all day /
        they offered me the job i had dreamed of / the tests came back clear and i was well again /
        my novel was accepted by a publisher / my friends sang for me and brought a huge cake /
        i finished my first marathon / the audience stood up and clapped for my song /
        we got the keys to our first house / my daughter won first prize for her painting /
        i woke up to fresh snow and a day off / my tomatoes won at the village fair /
        i got the scholarship || my school friends came and we told stories all night /
        we reached the summit just as the sun rose / the bank said yes to my little cafe""",
    "love": """my baby fell asleep on my chest / my wife fell asleep with her head on my shoulder /
        he brought me soup and held my hand all night / my little boy put his arms round my neck /
        she wrote me a poem for our anniversary / he walked through the rain to bring me my coat /
        we kissed under the old bridge / she tucked the blanket round me before she went to work /
        he looked at me as he did on our wedding day / i watched him sing our girl to sleep /
        she kissed my forehead at the door / my husband saved the last piece of cake for me ||
        he learnt my song on the piano for me / my newborn son wrapped his hand round my finger /
        we slow danced cheek to cheek""",
    "anger": """my boss took the credit for my work / the landlord kept my deposit for no reason /
        somebody keyed my car and drove off / the airline lost my bags and refused to apologise /
        the neighbours played their music until four in the morning again /
        they charged me twice and hung up / they gave my promotion to the son of the director /
        my flatmate ate my food and lied about it / a driver splashed me on purpose and waved /
        he interrupted me for the tenth time / someone jumped the queue and swore at me /
        she read my diary aloud to her friends / my ex told lies about me to everyone ||
        the shop sold me a broken heater and refused to take it back /
        my colleague deleted my files and shrugged / they blamed me for a mistake of their own""",
    "fear": """i heard footsteps behind me in the dark alley / something growled outside my tent /
        the brakes failed on the hill / the lift stopped between two floors and the cable creaked /
        the plane dropped and the oxygen masks came down / the ground shook and the walls cracked /
        the doctor found a lump / the lights went out and something moved in the cellar /
        someone tried the handle of my front door at night / a car followed me for an hour /
        my son did not come home and his phone was off / the flood reached our street /
        i got lost in the fog alone / a stranger stood under my window all night ||
        the ice cracked under my feet / a voice on the phone said it knew where i lived /
        i woke to the smell of smoke in the hall / the bull turned and ran at me""",
    "surprise": """my quiet aunt turned out to be a spy / the old box was full of coins /
        it snowed in the middle of june / the parcel i posted in march came back from japan /
        i found a secret room behind the bookcase / my teacher turned up on a motorbike /
        my parents told me that i have a twin / a deer walked right into our kitchen /
        my lost ring turned up inside a fish || the old clock struck thirteen /
        my grandfather began to speak fluent chinese / an elephant stood in the car park""",
}

# What the speaker does or senses now, again without an emotion word.
CUES = {
    "sadness": """i cannot stop crying / i can barely get out of bed / i keep staring at the wall /
        i have a lump in my throat / nothing seems worth doing / everything looks grey to me /
        i just want to draw the curtains and sleep / my chest is hollow / i have no tears left ||
        my pillow is wet / i sit here weeping over old photographs""",
    "joy": """i cannot stop smiling / i have been singing all day / i want to dance in the street /
        i keep laughing to myself / life is treating me well / i have a spring in my step /
        everything seems bright and easy / i am grinning from ear to ear / i could jump and cheer ||
        i am humming in the kitchen like a bird / i am on top of the world""",
    "love": """i never want to let go / i want to stay this close for ever / i melt at that smile /
        i could look at that face for ever / there is nobody i would rather have near me /
        my heart is given away for good / i long to hold my darling close ||
        i have never held anyone so dear / i adore every hair on that head""",
    "anger": """i could scream at them / i want to slam every door in the house /
        my blood is boiling / i am grinding my teeth / i will not put up with this any longer /
        my fists will not unclench / i want to throw a plate at the wall / i am seeing red /
        i have had enough of this nonsense || i am about to explode / i want to hit something""",
    "fear": """i jump at my own shadow / i keep looking over my shoulder / i dare not move /
        i keep checking the locks / i am frozen to the spot / i want to hide under the bed /
        every little noise is a threat / i lie awake imagining the worst / i want to run away ||
        my knees have turned to water / i am holding my breath and listening""",
    "surprise": """i cannot believe my eyes / my jaw is still on the floor / i cannot take it in /
        i keep rubbing my eyes in disbelief / i have to look twice / i can hardly believe it /
        i have no idea how that is possible / i am lost for words ||
        nobody could have foreseen this / i blink and look again""",
}

# Fillers that fit every label.
SHARED = {
    # What any strong emotion may do to a body: only the reason given tells which one it is.
    "body": """my heart is racing / i am trembling / i have tears in my eyes / i cannot sleep /
        my voice is shaking / i need to sit down / i can think of nothing else ||
        my cheeks are burning / i am pacing up and down""",
    "person": """my sister / my brother / my mother / my father / my neighbour / my flatmate /
        my cousin / my best friend / my boss / my aunt / the man next door / my teacher /
        the girl at the till || my uncle / my daughter / the woman opposite""",
    "time": """today / tonight / this morning / this evening / right now / on the way home /
        after all that / as i write this / after the phone call / at my desk / in the kitchen /
        after the meeting || on the train / in the waiting room / after dinner""",
    "where": "around him / around her / in this house / on sunday evenings / at work || at home",
    "degree": "so / really / truly / a little / rather / strangely / quite || deeply",
}

# {E}, {event}, {cue}: a word, an event, a cue of the label. {D}, {other_event}, {other_cue}: of one
# and the same other label. {D2}: a word of a third label.
# Nearly every pattern has a twin in the other order, so neither the first nor the last emotion word
# gives the label away; and swapping {D} and {E} changes the label but not the bag of words.
PATTERNS = {
    "plain": """i feel {degree} {E} {time} / {time} i am {degree} {E} /
        i do not know why i feel {degree} {E} {time} / i have been feeling {degree} {E} all day /
        i must admit that i am {degree} {E} {time} / i told {person} that i feel {degree} {E} /
        i woke up feeling {degree} {E} || all i can say {time} is that i am {degree} {E}""",
    "contrast": """i thought i would feel {D} {time} but i feel {E} /
        i feel {E} {time} but i thought i would feel {D} /
        i am not at all {D} any more i am {E} / i am {E} and not at all {D} any more /
        {time} i would call myself {E} and not {D} / {time} i would call myself not {D} but {E} /
        {person} is {D} while i am {E} / i am {E} while {person} is {D} /
        {person} thinks i am {D} but the truth is that i am {E} /
        the truth is that i am {E} but {person} thinks i am {D} /
        {person} says i look {D} and yet i feel {E} / i feel {E} and yet {person} says i look {D} /
        first i was {D} then i was {D2} and now i am {E} /
        now i am {E} but first i was {D} then {D2} /
        i am more {E} than {D} {time} / i am less {D} than {E} {time} /
        i am only a little {D} but above all i am {E} / above all i am {E} and only a little {D} /
        i cannot pretend that i am {D} or that i am not {E} /
        i cannot pretend that i am not {E} or that i am {D} /
        i should be {D} {time} but i am {E} / i am {E} {time} when i should be {D} ||
        instead of feeling {D} i feel {E} {time} / i feel {E} {time} instead of {D} /
        i was {D} until {person} called and now i am {E} /
        i am {E} now that {person} has called but i was {D} before""",
    "lasting": """i used to feel {D} {where} but now i feel {E} /
        i feel {E} {where} now but used to feel {D} /
        for years i was {D} {where} but these days i am {E} /
        these days i am {E} {where} but for years i was {D} ||
        after years of feeling {D} {where} i feel {E} /
        i feel {E} {where} after years of feeling {D}""",
    "unnamed": """{event} / {event} and {cue} / i have to write this down {event} and {cue} /
        i told {person} that {event} and that {cue} / {cue} and {person} knows why /
        {body} because {event} || dear diary {event} and now {cue}""",
    "mixed": """last year {other_event} but now {cue} / now {cue} but last year {other_event} /
        first {other_event} but then {event} and now {cue} /
        {cue} because {event} but before that {other_event} /
        {body} not because {other_event} but because {event} /
        {body} because {event} and not because {other_event} /
        {person} thinks i am {D} but {cue} / {cue} but {person} thinks i am {D} /
        {event} and {cue} but {person} is {D} / {person} is {D} but {event} and {cue} /
        {other_event} and yet i am {E} / i am {E} and yet {other_event} /
        i dreamt that {other_event} and woke up {E} /
        i woke up {E} but i had dreamt that {other_event} /
        i can no longer say that {other_cue} because {cue} /
        {cue} so i can no longer say that {other_cue} ||
        everybody expects me to be {D} because {other_event} but i am {E} /
        i am {E} although everybody expects me to be {D} because {other_event}""",
}
DECK = 3 * ["plain"] + 7 * ["contrast"] + 2 * ["lasting"] + 4 * ["unnamed"] + 4 * ["mixed"]

SHORT_FORMS = {"i am ": "im ", "i have been ": "ive been ", "it is ": "its ",
               "do not ": "dont ", "i would ": "id "}  # fmt: skip


def _pools(lists, held_out: bool):
    """The lists above split into entries, those behind "||" only where they are wanted."""
    if isinstance(lists, dict):
        return {key: _pools(inner, held_out) for key, inner in lists.items()}
    common, _, rest = lists.partition("||")
    entries = common.split("/") + (rest.split("/") if held_out and rest else [])
    return [" ".join(entry.split()) for entry in entries]


def _sentence(label: str, pools: dict, rng: Random) -> str:
    """One sentence whose speaker feels ``label``: a pattern, its slots filled."""

    def pick(items):  # not rng.choice: Python promises only random() the same for ever
        return items[int(rng.random() * len(items))]

    family = pick(DECK)
    others = [name for name in LABEL_NAMES if name != label]
    if family == "lasting":  # nobody is startled for years
        others = [name for name in others if name != "surprise"]
        family = "contrast" if label == "surprise" else family
    other = pick(others)
    third = pick([name for name in others if name != other])
    words, events, cues = pools["words"], pools["events"], pools["cues"]
    return pick(pools["patterns"][family]).format(
        E=pick(words[label]), D=pick(words[other]), D2=pick(words[third]),
        event=pick(events[label]), other_event=pick(events[other]),
        cue=pick(cues[label]), other_cue=pick(cues[other]),
        **{slot: pick(fillers) for slot, fillers in pools["shared"].items()},
    )  # fmt: skip


def built_in_corpus(seed: int = 0) -> dict[str, tuple[list[str], list[int]]]:
    """The three splits, each as (texts, labels): the same for a seed on every machine.

    The rules. A label is what the speaker feels now, all said and done; of two emotions felt at
    once, the stronger. What somebody else feels, what the speaker felt before, expected, dreamt,
    denies or is thought to feel does not count. A named emotion outweighs what the events suggest
    ("i got the scholarship and yet i am angry"); where none of the speaker's is named, events and
    bodily cues decide. Train never sees the fillers and patterns behind "||", so the other splits
    ask for a little more than recall. No sentence occurs twice, not even with other short forms.

    Returns train, validation and test, the labels as indices into ``LABEL_NAMES``. Another ``seed``
    gives another corpus from the same grammar.
    """
    rng = Random(seed)
    lists = dict(words=WORDS, events=EVENTS, cues=CUES, shared=SHARED, patterns=PATTERNS)
    seen, splits = set(), {}
    for split, size in SIZES.items():
        pools = _pools(lists, held_out=split != "train")
        rows = []
        for label, name in enumerate(LABEL_NAMES):
            for _ in range(size * SHARES[label] // 1000):
                while (text := _sentence(name, pools, rng)) in seen:
                    pass
                seen.add(text)
                if rng.random() < 0.3:  # the real texts have lost their apostrophes
                    for long, short in SHORT_FORMS.items():
                        text = text.replace(long, short)
                rows.append((text, label))
        rows.sort(key=lambda _: rng.random())  # a shuffle that rests on random() alone
        splits[split] = ([text for text, _ in rows], [label for _, label in rows])
    return splits
