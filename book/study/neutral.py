"""Sentences that have nothing to do with emotion, to see what an encoder still knows of meaning.

Written for this package. Eight themes with eight scenes each. A scene is three sentences: the
second says what the first says, in other words; the third is *near*: it mostly shares more words with the
first, and says something else. So counting words leads to the third, and reading to the second.
"""

from itertools import chain

THEMES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "travel": (
        ("The bus to the station leaves at ten past eight.", "At 8:10 there is a coach that goes to the railway.", "The bus to the station holds sixty people."),
        ("The ferry does not run in winter.", "From December to March no boat crosses here.", "The ferry was built in a winter with much snow."),
        ("Her suitcase weighs twenty kilos.", "The luggage she brought is twenty kilograms heavy.", "Her suitcase has two wheels and a long handle."),
        ("The road over the pass is closed for repairs.", "Because of building works nobody can drive across the mountain.", "The road over the pass was drawn on every old map."),
        ("A return ticket is cheaper than two singles.", "Buying the way there and back together costs less.", "A return ticket is printed on yellow paper."),
        ("The train was late because of a broken signal.", "A fault in the lights along the track delayed the express.", "The train carries coal and broken stone."),
        ("We crossed the border shortly before noon.", "It was almost midday when we entered the other country.", "The border follows the river for many miles."),
        ("The pilot announced that we would land in ten minutes.", "Passengers were told the plane would be on the ground soon.", "The pilot trained for ten years in another country."),
    ),
    "kitchen": (
        ("Boil the potatoes for twenty minutes.", "Leave the spuds in bubbling water for a third of an hour.", "The potatoes were stored in the cellar for the winter."),
        ("He cut the bread into thin slices.", "The loaf was divided into narrow pieces with a knife.", "He bought the bread at the shop on the corner."),
        ("The oven must be hot before the cake goes in.", "Preheat the stove, and only then bake.", "The oven stands between the window and the door."),
        ("There is no milk left in the fridge.", "We have run out of milk.", "The milk in this fridge comes from a farm in the north."),
        ("Add a pinch of salt to the soup.", "The broth needs a little salt.", "The salt for the roads is kept beside the soup kitchen."),
        ("She peels the apples with a small knife.", "With a short blade she takes the skin off the fruit.", "She sells the apples at a small market."),
        ("The coffee is ground fresh every morning.", "Each day the beans are milled just after sunrise.", "The coffee was shipped in sacks of sixty kilos."),
        ("Let the dough rest until it has doubled in size.", "Wait for the paste of flour and yeast to grow to twice its volume.", "The dough sticks to the table when it is wet."),
    ),
    "house": (
        ("The plumber mended the leaking tap.", "A tradesman repaired the faucet that was dripping.", "The plumber parked his van beside the tap in the yard."),
        ("The roof was covered with new tiles.", "Fresh slates were laid on top of the building.", "The roof can be seen from the new bridge."),
        ("He painted the kitchen walls white.", "He gave the walls of the cooking area a coat of white.", "He hung a clock on the white kitchen wall."),
        ("The key turns only if you pull the door towards you.", "To unlock it, first draw the handle towards your body.", "The key to the door hangs on a nail."),
        ("The lift is out of order, so take the stairs.", "You have to walk up, as the elevator does not work.", "The lift can carry eight people or a piano."),
        ("The flat has two bedrooms and a balcony.", "It is an apartment with a balcony and two rooms to sleep in.", "The flat is on the bedroom side of a factory town."),
        ("The heating switches itself off at night.", "After dark the radiators go cold automatically.", "The heating was paid for by the owner last year."),
        ("A carpenter made the table from old oak beams.", "The table was built by a joiner from used timber.", "A carpenter measured the table and wrote down the length."),
    ),
    "office": (
        ("The meeting was moved from Monday to Thursday.", "We do not meet on Monday but three days later.", "The meeting on Monday took place in the large hall."),
        ("Please send the invoice by email.", "We ask you to bill us electronically.", "Please print the email on both sides of the page."),
        ("She types eighty words a minute.", "Her speed at the keyboard is over one word each second.", "She counted eighty words in the first paragraph."),
        ("The printer has run out of paper.", "No sheets are left in the machine that makes copies.", "The printer was delivered in a box full of paper."),
        ("The contract ends after two years.", "In twenty-four months the agreement expires.", "The contract is two pages long and has a blue cover."),
        ("The firm employs three hundred people.", "At this company there are 300 workers.", "The firm sells three hundred kinds of screws."),
        ("He answers the telephone from nine to five.", "During office hours you can reach him by calling.", "He bought five telephones for the new building."),
        ("The report must be finished by Friday.", "The deadline for the document is at the end of the week.", "The report has a table on every second page."),
    ),
    "nature": (
        ("The river floods the meadow every spring.", "When the snow melts, the stream covers the grassland.", "The river is crossed by a footbridge near the meadow."),
        ("Most oaks lose their leaves in autumn.", "In the fall those trees become bare.", "Most oaks in this park were planted by one gardener."),
        ("Bees carry pollen from flower to flower.", "Insects fertilise blossoms by bringing them dust of others.", "Bees are drawn on the label of this flower shop."),
        ("The glacier is shrinking by ten metres a year.", "Each year the ice in the valley grows shorter.", "The glacier can be reached on foot in a year with little snow."),
        ("Owls hunt at night.", "An owl looks for its prey in the dark.", "Owls are carved above the door of the night school."),
        ("The island was formed by a volcano.", "Lava from below the sea made this piece of land.", "The island has a harbour and a small hotel."),
        ("Sheep graze on the hill behind the village.", "On the slope beyond the houses a flock eats grass.", "Sheep were counted on paper by the village clerk."),
        ("It rained without a break for three days.", "There was constant wet weather from Monday to Wednesday.", "It took three days to mend the broken rain gauge."),
    ),
    "science": (
        ("Water freezes at zero degrees Celsius.", "At thirty-two Fahrenheit the liquid turns to ice.", "Water is piped to the laboratory from a lake."),
        ("The moon goes round the earth in about a month.", "The lunar orbit round our planet takes about four weeks.", "The moon is drawn as a circle on the map of the earth."),
        ("Iron rusts when it is wet.", "Moisture makes this metal turn brown and crumble.", "Iron is carried by ship from a wet northern port."),
        ("The telescope can see galaxies that are very far away.", "With this instrument distant star systems become visible.", "The telescope was carried up the mountain by mules."),
        ("Sound travels faster in water than in air.", "Noise moves more quickly below the sea than above it.", "Sound engineers travel by air with heavy boxes."),
        ("The experiment was repeated five times.", "Researchers ran the same trial again and again, five in all.", "The experiment needs a room with five sockets."),
        ("A magnet attracts iron nails.", "Small steel pins are pulled by it without being touched.", "A magnet holds the list to the iron door."),
        ("Plants need light to grow.", "Nothing green grows without sunshine.", "Plants stand beside the light switch in the hall."),
    ),
    "town": (
        ("The library is open until seven in the evening.", "You can borrow books there up to 7 pm.", "The library was opened by the mayor of the town."),
        ("A new bridge will link the two halves of the city.", "Both sides of town are to be joined by a crossing.", "A new map shows the city in two colours."),
        ("The market takes place in front of the church.", "Stalls are set up on the square before the parish building.", "The market raised its prices before the church was built."),
        ("Parking here costs two coins an hour.", "To leave your car here you pay two coins for every hour.", "Parking meters were invented at a time of coins."),
        ("The museum shows tools from the stone age.", "Prehistoric implements are on display in its rooms.", "The museum is built of stone and stands in a park."),
        ("The school has moved to a larger building.", "Pupils are now taught in a bigger place.", "The school teaches how a large building is drawn."),
        ("The street lamps are lit by gas.", "Lights along the road burn a fuel from pipes.", "The street was named after a maker of lamps."),
        ("The bank is on the corner opposite the post office.", "Across from where letters are sent you find the place to deposit money.", "The bank lent the money for a new post van."),
    ),
    "sport": (
        ("The match ended in a draw.", "Neither team won, since both had equal scores.", "The match was printed in the list on the wall."),
        ("She swims two kilometres every morning.", "Each day starts with forty lengths of the pool for her.", "She drove two kilometres to the swimming pool."),
        ("The cyclist rode up the mountain in an hour.", "It took the man on the bike sixty minutes to reach the summit.", "The cyclist bought a mountain map and a lamp."),
        ("The referee sent one player off.", "A member of the team had to leave the pitch by order of the umpire.", "The referee wears a black shirt, the player a blue one."),
        ("The marathon is a little over forty-two kilometres long.", "Runners have to cover twenty-six miles in this race.", "The marathon was shown on a screen two metres wide."),
        ("The tennis court is covered with clay.", "The ground on which they play tennis is made of red earth.", "The tennis court lies behind the covered market."),
        ("The chess club meets on Tuesdays.", "Once a week the players of the board game get together.", "The chess club has lent its tables to the choir."),
        ("He lifted a hundred kilos over his head.", "A weight of a tenth of a ton was raised above him.", "He packed a hundred kilos of sand over the pipe."),
    ),
}  # fmt: skip

SCENES = tuple(chain.from_iterable(THEMES.values()))
SENTENCES = tuple(chain.from_iterable(SCENES))  # in order: first, paraphrase, near, first, …
