"""The sentences and questions of the demo dataset, by kind of thing.

`{name}` is the thing, `{region}` where it is, `{answer}` what a fact is about; blanks such as `[person]`,
`[1800-1890]` or `[oak|pine]` are drawn when a passage is written (see `World.fill`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One thing to know: its answer, sentences that state it and questions that ask for it."""

    answer: str
    sentences: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """Things of one sort: their names, how a passage opens, and what there is to know, in telling order."""

    title: str
    name: str
    openings: tuple[str, ...]
    facts: tuple[Fact, ...]


TOWN = Kind(
    title="Towns of {region}",
    name="[place]",
    openings=(
        "{name} is a [small|quiet|busy|walled] town in the [hills|lowlands|lake country] of {region}.",
        "In the [east|west|north|south] of {region}, at a bend of the river, lies the town of {name}.",
        "Travellers who cross {region} on foot usually rest for a night in {name}.",
    ),
    facts=(
        Fact(
            "[person]",
            (
                "It was founded by {answer}, who had been sent to look for a safe crossing.",
                "According to the town chronicle, {answer} founded it after a winter in the open.",
            ),
            ("Who founded {name}?", "Which person was the founder of {name}?", "By whom was {name} founded?"),
        ),
        Fact(
            "[1210-1690]",
            (
                "The first charter was granted in {answer} and still hangs in the council room.",
                "Its right to hold a market goes back to a charter of {answer}.",
            ),
            (
                "When was the charter of {name} granted?",
                "In which year did {name} receive its charter?",
                "What year does the market charter of {name} date from?",
            ),
        ),
        Fact(
            "[salt|copper|wool|amber|slate|linen|honey|tin]",
            (
                "For centuries the merchants there grew rich on the trade in {answer}.",
                "Most families once lived from {answer}, which was sold as far away as the coast.",
            ),
            (
                "What did the people of {name} trade in?",
                "Which good made the merchants of {name} rich?",
                "What was sold from {name} to distant places?",
            ),
        ),
        Fact(
            "the river [place]",
            (
                "A stone quay on {answer} recalls the time when barges stopped there every day.",
                "The lower streets, close to {answer}, are flooded almost every spring.",
            ),
            (
                "On which river does {name} lie?",
                "What river runs past {name}?",
                "Which river floods the lower streets of {name}?",
            ),
        ),
        Fact(
            "[2-38],[100-999] people",
            (
                "At the last count {answer} lived inside the town limits.",
                "Today it is home to {answer}, fewer than a century ago.",
            ),
            (
                "How many people live in {name}?",
                "What is the population of {name}?",
                "How large was the population of {name} at the last count?",
            ),
        ),
        Fact(
            "[person]",
            (
                "The town hall, with its green roof, was designed by {answer}.",
                "Visitors come to see the town hall, a late work of the architect {answer}.",
            ),
            (
                "Who designed the town hall of {name}?",
                "Which architect built the town hall in {name}?",
                "Whose work is the town hall of {name}?",
            ),
        ),
        Fact(
            "[a great fire|an earthquake|a flood|a landslide|a siege]",
            (
                "Little of the oldest quarter is left, since {answer} destroyed it in a single night.",
                "The oldest quarter was lost to {answer} and rebuilt with wider streets.",
            ),
            (
                "What destroyed the oldest quarter of {name}?",
                "By what was the old quarter of {name} lost?",
                "Which disaster struck the oldest part of {name}?",
            ),
        ),
        Fact(
            "the Feast of [Lanterns|Kites|Bells|Boats|Apples|Masks|Ropes|Candles]",
            (
                "Every autumn the streets fill with music for {answer}.",
                "The high point of the year is {answer}, when nobody works for three days.",
            ),
            (
                "Which festival is held in {name}?",
                "What do the people of {name} celebrate every year?",
                "What is the festival of {name} called?",
            ),
        ),
        Fact(
            "[place]",
            (
                "Since the railway was built, trains have linked it with {answer} in under an hour.",
                "A railway line now joins it to {answer}, where many of its people work.",
            ),
            (
                "To which place is {name} linked by railway?",
                "Where do trains from {name} go?",
                "What place does the railway join to {name}?",
            ),
        ),
    ),
)

COMPANY = Kind(
    title="Companies of {region}",
    name="[surname] [Works|Brothers|Mills|Foundry|and Daughters|Trading]",
    openings=(
        "{name} is one of the oldest firms in {region} that is still run by a family.",
        "Few companies in {region} are as well known as {name}.",
        "The brick chimneys of {name} can be seen from every road into {region}.",
    ),
    facts=(
        Fact(
            "[person]",
            (
                "It was set up by {answer}, a former clerk with almost no money.",
                "The founder, {answer}, began with two rented rooms and a borrowed cart.",
            ),
            ("Who founded {name}?", "Which person set up {name}?", "Who was the founder of {name}?"),
        ),
        Fact(
            "[1805-1899]",
            (
                "The first order was delivered in {answer} and paid for in grain.",
                "Business began in {answer}, in a year of poor harvests.",
            ),
            (
                "When did {name} begin its business?",
                "In what year did {name} start?",
                "What year did the business of {name} begin?",
            ),
        ),
        Fact(
            "[pocket clocks|glass lamps|iron stoves|sewing needles|paper|ship ropes|bicycles|church organs]",
            (
                "In its early days the firm made nothing but {answer}, all by hand.",
                "It became known for {answer}, sold at a low price and hardly ever returned.",
            ),
            (
                "What did {name} make at first?",
                "For which product did {name} become known?",
                "Which goods did {name} produce?",
            ),
        ),
        Fact(
            "[place]",
            (
                "When the yard became too narrow, the owners moved to a larger site in {answer}.",
                "Its main building stands in {answer}, next to an old canal.",
            ),
            (
                "Where is the main site of {name}?",
                "In which place is {name} based?",
                "Where does the main building of {name} stand?",
            ),
        ),
        Fact(
            "[110-980] workers",
            (
                "At its height {answer} passed through the gates each morning.",
                "It employed {answer} in its best year, half of them women.",
            ),
            (
                "How many people did {name} employ?",
                "How many workers did {name} have at its height?",
                "What was the largest number of workers at {name}?",
            ),
        ),
        Fact(
            "[person]",
            (
                "The best known patent of the house was the work of {answer}, an engineer in its service.",
                "Its engineer {answer} invented a quieter drive, and other firms soon copied it.",
            ),
            (
                "Which engineer worked for {name}?",
                "Who made the best known invention of {name}?",
                "Whose invention was copied from {name} by other firms?",
            ),
        ),
        Fact(
            "[a strike|a boiler explosion|a bank failure|a shortage of coal|a lost lawsuit]",
            (
                "Twice it came close to ruin, the first time because of {answer}.",
                "After {answer} the gates stayed shut for most of a year.",
            ),
            (
                "What almost ruined {name}?",
                "Why did {name} have to close for a time?",
                "Because of what did {name} come close to ruin?",
            ),
        ),
        Fact(
            "[a grey heron|a red fox|three keys|a silver anchor|an open hand|a white stag]",
            (
                "The trademark shows {answer} and has not changed since.",
                "Every piece that left the works was stamped with {answer}.",
            ),
            (
                "What does the trademark of {name} show?",
                "What is stamped on the products of {name}?",
                "Which sign does {name} use as its trademark?",
            ),
        ),
        Fact(
            "[surname] [Holdings|Union|Group]",
            (
                "Some years ago a majority of the shares was sold to {answer}.",
                "Today it belongs to {answer}, although the old name is still above the door.",
            ),
            (
                "To whom does {name} belong today?",
                "Who bought the shares of {name}?",
                "Which company owns {name}?",
            ),
        ),
    ),
)

EXPEDITION = Kind(
    title="The exploration of {region}",
    name="[surname] Expedition",
    openings=(
        "The {name} was among the first that tried to cross {region} from end to end.",
        "Much of what is known about the inner valleys of {region} goes back to the {name}.",
        "When the {name} set out for {region}, the newspapers gave it little chance.",
    ),
    facts=(
        Fact(
            "[person]",
            (
                "Its leader, {answer}, had already spent two winters in tents.",
                "It was led by {answer}, a surveyor who rarely spoke and never gave up.",
            ),
            (
                "Who led the {name}?",
                "Which person was the leader of the {name}?",
                "By whom was the {name} led?",
            ),
        ),
        Fact(
            "[place]",
            (
                "The party left the harbour of {answer} on a morning of thick fog.",
                "Sledges and stores were gathered in {answer}, from where the journey started.",
            ),
            (
                "From where did the {name} start?",
                "Where did the journey of the {name} begin?",
                "Which place did the {name} set out from?",
            ),
        ),
        Fact(
            "[1820-1910]",
            (
                "After long delays the march began in {answer}.",
                "The march itself took place in {answer}, the coldest year in memory.",
            ),
            (
                "In which year did the {name} take place?",
                "When did the march of the {name} begin?",
                "What was the year of the {name}?",
            ),
        ),
        Fact(
            "[14-86] [dogs|mules|ponies|camels]",
            (
                "The loads were carried by {answer}, of which few returned.",
                "For transport the party relied on {answer} and a handful of light boats.",
            ),
            (
                "Which animals carried the loads of the {name}?",
                "How many animals did the {name} take along?",
                "On what animals did the {name} rely for transport?",
            ),
        ),
        Fact(
            "[person]",
            (
                "The rich widow {answer} had paid for the whole undertaking.",
                "Most of the money came from {answer}, a banker with a love of maps.",
            ),
            (
                "Who paid for the {name}?",
                "From whom did the money for the {name} come?",
                "Who financed the {name}?",
            ),
        ),
        Fact(
            "[a hot spring|a salt lake|a ruined temple|a fossil field|a vein of silver|an unknown strait]",
            (
                "In the seventh week the scouts came upon {answer}, which no map had shown.",
                "Its most important discovery was {answer} behind the second pass.",
            ),
            (
                "What did the {name} discover?",
                "What was the most important discovery of the {name}?",
                "What did the scouts of the {name} find?",
            ),
        ),
        Fact(
            "[scurvy|snow blindness|a broken sledge|hunger|a burst dam|an avalanche]",
            (
                "The advance was stopped by {answer} only a few miles short of the goal.",
                "Because of {answer} the northern group had to turn back early.",
            ),
            (
                "What stopped the {name}?",
                "Why did a group of the {name} turn back?",
                "Because of what did the {name} end early?",
            ),
        ),
        Fact(
            "Mount [place]",
            (
                "The highest peak on the route was given the name {answer}.",
                "From the top of {answer} the party could see both coasts.",
            ),
            (
                "Which mountain did the {name} climb?",
                "What is the peak on the route of the {name} called?",
                "From which mountain did the {name} see both coasts?",
            ),
        ),
        Fact(
            "the Museum of [place]",
            (
                "The diaries and instruments are now kept in {answer}.",
                "What remains of the equipment was left to {answer} by the last survivor.",
            ),
            (
                "Where are the diaries of the {name} kept?",
                "Which museum owns the equipment of the {name}?",
                "Where can the instruments of the {name} be found today?",
            ),
        ),
    ),
)

MACHINE = Kind(
    title="Machines built in {region}",
    name="[surname] [Engine|Loom|Press|Pump|Crane|Reaper]",
    openings=(
        "The {name} changed daily work in {region} more than any law.",
        "In the workshops of {region} the {name} is still spoken of with respect.",
        "No machine from {region} was copied as often as the {name}.",
    ),
    facts=(
        Fact(
            "[person]",
            (
                "Its inventor was {answer}, who drew the first plans on a kitchen table.",
                "It was invented by {answer}, the child of a village smith.",
            ),
            (
                "Who invented the {name}?",
                "Who was the inventor of the {name}?",
                "By whom was the {name} invented?",
            ),
        ),
        Fact(
            "[1788-1879]",
            (
                "A first model ran for eleven minutes in {answer} before a belt tore.",
                "The patent, dated {answer}, describes every part in plain words.",
            ),
            (
                "When was the {name} patented?",
                "In which year did the first model of the {name} appear?",
                "What year does the {name} date from?",
            ),
        ),
        Fact(
            "[steam|falling water|compressed air|hot oil|a heavy spring|two oxen]",
            (
                "It was driven by {answer}, which made it cheap to run.",
                "Unlike its rivals it drew its power from {answer}.",
            ),
            (
                "What drove the {name}?",
                "From what did the {name} draw its power?",
                "By what was the {name} driven?",
            ),
        ),
        Fact(
            "[bronze|cast iron|oak|brass|beech|hardened steel]",
            (
                "The frame was made of {answer} so that it would not crack in the cold.",
                "Builders chose {answer} for the frame, against the advice of the inventor.",
            ),
            (
                "What was the frame of the {name} made of?",
                "Which material was used for the frame of the {name}?",
                "Of what material did builders make the frame of the {name}?",
            ),
        ),
        Fact(
            "[3-58] tons",
            (
                "Fully loaded the machine weighed {answer}, too much for most floors.",
                "With a weight of {answer} it had to be brought to its place in parts.",
            ),
            (
                "How much did the {name} weigh?",
                "What was the weight of the {name}?",
                "How heavy was the {name}?",
            ),
        ),
        Fact(
            "[place]",
            (
                "The first one was put to use in a mill at {answer}.",
                "It proved its worth in {answer}, where it replaced forty pairs of hands.",
            ),
            (
                "Where was the {name} first used?",
                "In which place did the {name} prove its worth?",
                "Where did the {name} replace forty pairs of hands?",
            ),
        ),
        Fact(
            "[person]",
            (
                "A later version by {answer} needed only half the fuel.",
                "Its faults were removed by {answer}, who added a second valve.",
            ),
            (
                "Who improved the {name}?",
                "Whose version of the {name} was better?",
                "Who removed the faults of the {name}?",
            ),
        ),
        Fact(
            "[noise|smoke|dust|sparks|a bitter smell|constant leaks]",
            (
                "Neighbours complained about {answer} and took the matter to court.",
                "The one thing that everybody disliked about it was {answer}.",
            ),
            (
                "About what did neighbours of the {name} complain?",
                "What did people dislike about the {name}?",
                "What was the main complaint about the {name}?",
            ),
        ),
        Fact(
            "[12-240] copies",
            (
                "In all {answer} were built, and four of them still work.",
                "The workshop sold {answer} before the design went out of fashion.",
            ),
            (
                "How many copies of the {name} were built?",
                "How often was the {name} sold?",
                "How many of the {name} did the workshop sell?",
            ),
        ),
    ),
)

SCIENTIST = Kind(
    title="Scientists from {region}",
    name="[person]",
    openings=(
        "{name} is counted among the great scientists of {region}.",
        "The name of {name} is known to every schoolchild in {region}.",
        "A portrait of {name} hangs in the old academy of {region}.",
    ),
    facts=(
        Fact(
            "[place]",
            (
                "The future scholar was born in {answer}, above the shop of a baker.",
                "Born in {answer}, the child hardly spoke before the age of five.",
            ),
            (
                "Where was {name} born?",
                "What is the birthplace of {name}?",
                "In which place was {name} born?",
            ),
        ),
        Fact(
            "[person]",
            (
                "The first lessons were given by {answer}, a retired sea captain.",
                "A teacher called {answer} noticed the gift and lent out books.",
            ),
            (
                "Who taught {name}?",
                "Who was the teacher of {name}?",
                "Which teacher noticed the gift of {name}?",
            ),
        ),
        Fact(
            "the University of [place]",
            (
                "Studies at {answer} followed, paid for by copying music at night.",
                "After ten years as a clerk came a chair at {answer}.",
            ),
            (
                "At which university was {name}?",
                "What university is {name} connected with?",
                "Which university did {name} belong to?",
            ),
        ),
        Fact(
            "[botany|optics|geology|the study of tides|the study of bees|meteorology]",
            (
                "The field that came to fill a lifetime was {answer}.",
                "Friends had advised law, but nothing could compete with {answer}.",
            ),
            (
                "In which field did {name} work?",
                "What did {name} study?",
                "Which subject was most important to {name}?",
            ),
        ),
        Fact(
            "[1790-1899]",
            (
                "The main work appeared in {answer} and was sold out within a month.",
                "A thick book with coloured plates, printed in {answer}, brought sudden fame.",
            ),
            (
                "When was the main work of {name} published?",
                "In what year did the book of {name} appear?",
                "Which year was the famous book of {name} printed?",
            ),
        ),
        Fact(
            "[person]",
            (
                "Not everyone agreed, and {answer} attacked the theory in three pamphlets.",
                "The fiercest opponent, {answer}, later admitted to having been wrong.",
            ),
            (
                "Who attacked the theory of {name}?",
                "Who was an opponent of {name}?",
                "Which person disagreed with {name}?",
            ),
        ),
        Fact(
            "the [Golden|Silver|Crystal|Royal|Northern] [Compass|Medal|Laurel|Star]",
            (
                "For these results the academy awarded {answer}, its highest honour.",
                "The jury had to meet twice before it gave away {answer}.",
            ),
            (
                "Which prize did {name} receive?",
                "What honour was {name} given?",
                "With what was {name} honoured?",
            ),
        ),
        Fact(
            "[the violin|chess|keeping doves|mountain walks|painting fans|rowing]",
            (
                "What free time there was went into {answer}.",
                "Letters to a sister speak less of science than of {answer}.",
            ),
            (
                "What did {name} do in free time?",
                "Which pastime did {name} have?",
                "What did {name} like besides science?",
            ),
        ),
        Fact(
            "[12-97] notebooks",
            (
                "After the funeral {answer} were found in a locked chest.",
                "The family has since given {answer} to the state library.",
            ),
            (
                "How many notebooks did {name} leave behind?",
                "What was found in a chest after the death of {name}?",
                "How many notebooks of {name} are there?",
            ),
        ),
    ),
)

BRIDGE = Kind(
    title="Bridges of {region}",
    name="[place] Bridge",
    openings=(
        "The {name} carries the old post road of {region} over a deep gorge.",
        "On coins and stamps of {region} one often finds the {name}.",
        "Before the {name} was built, a ferry was the only way through the middle of {region}.",
    ),
    facts=(
        Fact(
            "[person]",
            (
                "It was designed by {answer}, until then a builder of churches.",
                "A young engineer, {answer}, won the contest with a drawing on two sheets.",
            ),
            (
                "Who designed the {name}?",
                "Which engineer planned the {name}?",
                "By whom was the {name} designed?",
            ),
        ),
        Fact(
            "[1740-1925]",
            (
                "It was opened to traffic in {answer} without any ceremony.",
                "The first carriages crossed in {answer}, and a toll was taken from each.",
            ),
            (
                "When was the {name} opened?",
                "In which year was the {name} opened to traffic?",
                "What year did carriages first cross the {name}?",
            ),
        ),
        Fact(
            "[41-690] metres",
            (
                "From one bank to the other it measures {answer}.",
                "With a length of {answer} it was a record for its time.",
            ),
            (
                "How long is the {name}?",
                "What is the length of the {name}?",
                "How much does the {name} measure from bank to bank?",
            ),
        ),
        Fact(
            "[granite|red brick|wrought iron|larch|limestone|sandstone]",
            (
                "Its piers are made of {answer} and have been repaired only once.",
                "As building material the council chose {answer}, which was at hand.",
            ),
            (
                "What is the {name} made of?",
                "Which material was chosen for the {name}?",
                "From what was the {name} built?",
            ),
        ),
        Fact(
            "[place]",
            (
                "On its western side a stair leads down to the village of {answer}.",
                "The road across it ends in {answer}, where the toll house still stands.",
            ),
            (
                "To which place does the {name} lead?",
                "Where does the road across the {name} end?",
                "Which village lies next to the {name}?",
            ),
        ),
        Fact(
            "[person]",
            (
                "The works were directed by {answer}, who lived in a hut on the bank.",
                "As foreman, {answer} kept a crew of sixty together through two winters.",
            ),
            (
                "Who directed the building of the {name}?",
                "Who was the foreman at the {name}?",
                "Which person led the works on the {name}?",
            ),
        ),
        Fact(
            "[drifting ice|a storm|a runaway barge|an army in retreat|rust|a swollen river]",
            (
                "Its middle arch was brought down by {answer} and had to be raised again.",
                "It was badly damaged by {answer} and stayed closed for two years.",
            ),
            (
                "What damaged the {name}?",
                "By what was the {name} brought down?",
                "Why did the {name} have to be repaired?",
            ),
        ),
        Fact(
            "[four lions|a bronze bell|a stone mermaid|two lanterns|a blind fiddler|a sleeping bear]",
            (
                "At the highest point stands a sculpture of {answer}.",
                "Children like to touch the carved figure of {answer} at the entrance.",
            ),
            (
                "What sculpture stands on the {name}?",
                "What does the figure at the {name} show?",
                "Which figure can be seen on the {name}?",
            ),
        ),
        Fact(
            "[2-19] [copper|silver] coins",
            (
                "For many years the toll for a cart was {answer}.",
                "Whoever wanted to cross with a cart had to pay {answer}.",
            ),
            (
                "How much was the toll on the {name}?",
                "What did it cost to cross the {name}?",
                "How much did a cart pay at the {name}?",
            ),
        ),
    ),
)

KINDS = (TOWN, COMPANY, EXPEDITION, MACHINE, SCIENTIST, BRIDGE)
