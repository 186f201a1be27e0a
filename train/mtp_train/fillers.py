"""Words, things and sentences that fill the templates of `prompts.py`. Plain data.

Some are near to prompts that heads are measured on; those prompts themselves are kept out by their
ids (`corpus.py`).
"""

from __future__ import annotations


def _entries(text: str) -> tuple[str, ...]:
    return tuple(" ".join(entry.split()) for entry in text.split(";"))


TOPICS = _entries(
    """
the water cycle; black holes; how vaccines work; photosynthesis; the French Revolution; machine
learning; supply and demand; climate change; the human heart; plate tectonics; blockchain; the
Roman Empire; how a computer boots; public-key cryptography; the immune system; inflation; quantum
entanglement; evolution by natural selection; how airplanes fly; DNA replication; the Renaissance;
how the internet works; compound interest; neural networks; the solar system; renewable energy;
how batteries store energy; the industrial revolution; recursion; democracy; the greenhouse
effect; how bread rises; sleep; memory in computers; the Silk Road; earthquakes; electric motors;
virtual memory; the stock market; World War I; tides; the scientific method; gravity; antibiotics;
how search engines rank pages; photography; relativity; the nervous system; operating systems;
volcanoes; soil erosion; the placebo effect; hash tables; garbage collection; the Cold War; how
rainbows form; nuclear fission; the Great Wall of China; game theory; ocean currents; compilers;
stoicism; the printing press; impressionism; jazz; chess openings; how coffee is roasted; the
history of tea; glaciers; fermentation; the periodic table; how GPS works; the Ottoman Empire; the
Aztecs; feudalism; the Enlightenment; the Cuban missile crisis; the Marshall Plan; colonialism;
the Suez Canal; Buddhism; the Reformation; human rights; the United Nations; federalism; the
separation of powers; taxes; unemployment; interest rates; exchange rates; insurance; marketing;
supply chains; bankruptcy; venture capital; negotiation; leadership; time management;
procrastination; mindfulness; anxiety; attachment theory; cognitive biases; memory; habits; child
development; sign language; grammar; metaphors; Shakespeare's tragedies; haiku; the novel as a
form; film editing; animation; perspective in painting; sculpture; opera; the blues; how a guitar
makes sound; rhythm; ballet; architecture; Gothic cathedrals; suspension bridges; skyscrapers;
concrete; steel; glass; plastics; paper making; textiles; leather; pottery; beekeeping;
composting; crop rotation; irrigation; greenhouses; wine making; cheese; chocolate; spices; food
preservation; vitamins; proteins; fats; digestion; the kidneys; the lungs; blood types; hormones;
the brain; vision; hearing; taste; skin; bones; muscles; allergies; viruses; bacteria; fungi;
cancer; diabetes; pain; surgery; physical therapy; epidemics; clean water; mountains; deserts;
rainforests; wetlands; tundra; caves; islands; rivers; lakes; clouds; lightning; hurricanes;
tornadoes; snow; comets; asteroids; Mars; Saturn's rings; galaxies; the Big Bang; stars;
telescopes; satellites; rockets; space stations; time; energy; heat; sound; light; color; lenses;
lasers; magnetism; electricity; radio waves; semiconductors; atoms; chemical bonds; acids and
bases; combustion; rust; crystals; polymers; catalysts; entropy; friction; pressure; buoyancy;
levers; gears; clocks; probability; statistics; averages; correlation; logarithms; fractions;
negative numbers; prime numbers; pi; infinity; sets; functions in mathematics; derivatives;
integrals; matrices; vectors; graphs; proofs by induction; logic; algorithms; sorting; binary
numbers; databases; SQL; indexes in a database; caching; load balancing; DNS; HTTP; cookies;
passwords; phishing; backups; version control; unit tests; object-oriented programming; functional
programming; concurrency; deadlocks; pointers; linked lists; binary trees; dynamic programming;
big O notation; regular expressions; JSON; APIs; cloud computing; containers; robots; self-driving
cars; speech recognition; recommendation systems; decision trees; clustering; linear regression;
3D printing; drones; bicycles; trains; ships; traffic lights; elevators; bridges; tunnels; dams;
wind turbines; nuclear power; recycling; deforestation; endangered species; migration of birds;
whales; wolves; ants; spiders' silk; coral; mushrooms; trees; seeds; flowers; grasses; dinosaurs;
fossils; the ice ages; the Stone Age; ancient Greece; ancient Egypt; the Vikings; the Mongols; the
Black Death; samurai; the Inca road system; pirates; the gold rush; the civil rights movement;
women's suffrage; the Olympic Games; football; tennis; swimming; yoga; marathon training; chess
strategy; poker; origami; knitting; calligraphy; public libraries; museums; newspapers;
advertising; social media; podcasts; censorship; copyright; juries; contracts; elections
"""
)

THINGS = _entries(
    """
healthy breakfasts; gifts for a friend; books for beginners; weekend activities; ways to save
money; interview questions; project ideas; names for a cat; team-building games; tips for better
sleep; ways to reduce stress; places to visit in Italy; small business ideas; exercises to do at
home; science experiments for children; habits of good programmers; ways to learn a language;
questions to ask a mentor; vegetarian dinners; safety rules in a lab; steps to plan a wedding;
items to pack for a camping trip; features of a good website; ways to save water; reasons to
exercise; common mistakes in public speaking; board games; musical instruments; programming
languages; renewable energy sources; houseplants that need little light; topics for a school
essay; ways to say thank you; ideas for a birthday party; ways to cook potatoes; uses of vinegar;
soups for winter; desserts without sugar; drinks for a party; snacks for a hike; herbs to grow
indoors; vegetables that are easy to grow; trees with edible fruit; birds of the forest; animals
of the desert; dogs that are good with children; tools every home needs; ways to reuse glass jars;
cleaning tips; ways to organize a desk; apps for students; skills for a resume; questions for a
survey; topics for small talk; games for a long drive; toys for a toddler; subjects for a photo
project; painting techniques; chords for beginners; dance styles; film genres; novels from the
19th century; famous scientists; inventions that changed the world; capital cities in Europe;
languages of Africa; islands in the Pacific; mountains over 6,000 meters; mythical creatures;
proverbs; words that rhyme with day; adjectives for a character; plot ideas; names for a bakery;
slogans for a gym; gift ideas for teachers; volunteer activities; ways to meet people; signs of
stress; causes of headaches; stretching exercises; healthy lunches for work; sources of protein;
mistakes first-time managers make; steps to start a podcast; things to check before buying a used
car; security tips for a phone; keyboard shortcuts; data structures; sorting algorithms; design
patterns; HTTP status codes; Linux commands; Python libraries; file formats; mathematical
constants; kinds of triangles; laws of physics; chemical elements; planets and their moons; types
of clouds; causes of the First World War; effects of the printing press; reasons people migrate;
forms of government; kinds of taxes
"""
)

TASKS = _entries(
    """
reverses a string; checks whether a number is prime; computes the factorial of n; sorts a list
with quicksort; finds the largest element of a list; counts the words in a text; merges two sorted
lists; reads a file and prints its lines; removes duplicates from a list; computes the n-th
Fibonacci number; checks whether a word is a palindrome; performs binary search; converts Celsius
to Fahrenheit; finds the greatest common divisor; transposes a matrix; counts the vowels in a
string; implements a stack; implements a queue with two stacks; parses a date in the form
YYYY-MM-DD; validates an email address; computes the mean and median; flattens a nested list;
counts how often each word occurs; generates a random password; inserts a node into a linked list;
traverses a binary tree in order; rotates an array by k; finds two numbers that add up to a
target; multiplies two matrices; computes a power quickly; reverses a linked list; checks for
balanced parentheses; prints the multiplication table; capitalizes every word; downloads a web
page; converts a number to binary; splits a list in chunks; simulates rolling two dice; implements
a simple bank account class; calculates the area of a circle; finds the longest common prefix;
implements bubble sort; groups words that are anagrams; computes the sum of the digits of a
number; reads numbers and prints their average; implements a simple calculator; finds all primes
below n; writes a CSV file; formats a list as a table; implements a least-recently-used cache;
finds the median of two sorted arrays; checks whether two strings are anagrams; converts Roman
numerals to integers; computes the edit distance between two words; prints Pascal's triangle;
generates all permutations of a list; finds the longest word in a sentence; counts the lines of a
file; reads a CSV file and sums a column; sorts a dictionary by value; parses a JSON string; sends
an HTTP GET request; converts seconds to hours, minutes and seconds; checks for a leap year; finds
the intersection of two lists; computes a moving average; implements a priority queue; implements
depth-first search; implements breadth-first search on a graph; finds the shortest path in a grid;
detects a cycle in a linked list; implements merge sort; implements insertion sort; implements a
hash map; encrypts a text with a Caesar cipher; counts the words that begin with a vowel; replaces
all spaces with underscores; removes punctuation from a string; converts a string to title case;
rounds a number to two decimals; simulates a coin toss; plays rock, paper, scissors; guesses a
number between 1 and 100; prints a chessboard; draws a diamond of stars; computes compound
interest; converts miles to kilometers; computes the body mass index; checks the strength of a
password; validates a phone number; finds duplicate files in a folder; renames files by date;
copies a file; measures the time a function takes; logs to a file; reads command-line arguments;
connects to a SQLite database; creates a table with three columns; writes a simple web server;
scrapes the titles of a web page; implements a timer; represents a rectangle as a class;
represents a library of books; models a bank queue; implements an iterator over a range; memoizes
a function; composes two functions; curries a function; filters even numbers with a lambda; maps a
list of names to their lengths; zips two lists; partitions a list by a predicate; computes the dot
product of two vectors; solves a quadratic equation; approximates pi; finds a square root by
Newton's method; evaluates a polynomial; computes the n-th triangular number; checks whether a
matrix is symmetric; counts set bits; swaps two variables without a third; finds the missing
number in a list; finds the majority element; rotates a matrix; compresses a string by run length;
splits a sentence into words; finds all substrings of a string; counts inversions
"""
)

SUBJECTS = _entries(
    """
a lighthouse keeper; a robot who learns to paint; two friends lost in a forest; a dragon afraid of
fire; an old clockmaker; a girl who talks to the sea; a detective and a cat; the last tree on
Earth; a baker in a small village; a time traveler in ancient Egypt; autumn; rain; the moon; a
lost letter; the city at night; a train journey; a grandmother's garden; the ocean; a knight
without a sword; a violin; winter mornings; a spaceship far from home; an honest thief; a mountain
village; first love; a dog waiting at the station; stars; a magic library; a painter who lost his
colors; a storm at sea; two sisters and a secret; a library at midnight; a boy and his kite; an
astronaut's letter home; the last bus; a talking crow; a clock that stops at noon; a market in the
morning; a lonely robot; the first snow; an island without a name; a cook who cannot taste; a map
with a hole in it; a bridge between two villages; a queen who hides her crown; a wedding in the
rain; a forgotten garden; a fisherman's dream; a city under the sea; a violinist on the street; an
empty house; a cat on a roof; a message in a bottle; a teacher's last day; a summer by the lake;
the sound of bells; an unexpected guest; a broken mirror; a river in spring; a desert night; a
child's question; an old photograph; a race between two snails; a thunderstorm; a candle in the
dark; the wind; a soldier coming home; a shy ghost; an orchard; a wizard who forgets his spells; a
paper boat; a mountain climber; a new neighbor; a museum guard; freedom; hope; silence; time;
courage; friendship; home; memory; a field of sunflowers; a tiny dragon; a shoemaker; the color
blue; a train that never stops
"""
)

SENTENCES = _entries(
    """
The weather is very nice today.; Where is the nearest train station?; I would like to order a cup
of coffee.; My brother works in a hospital.; The book on the table belongs to my teacher.; We are
going to the beach tomorrow.; Could you please help me find my keys?; She has been learning to
play the piano for two years.; Thank you very much for your help.; How much does this cost?; He
don't like apples and oranges.; I has a meeting yesterday with my boss and he were late.; The
children was playing in the garden.; Me and him goes to the store every days.; The meeting has
been moved to Friday at three o'clock.; Good morning, how did you sleep?; The results of the
experiment were not what we expected.; Please send me the report by the end of the week.; I am
sorry that I am late.; The store opens at nine and closes at six.; I forgot my umbrella at the
office.; Can you tell me what time it is?; She speaks three languages fluently.; We have lived in
this town for ten years.; The soup is too hot to eat.; My father was born in a small village.; He
was reading a newspaper when the phone rang.; Where did you buy this jacket?; They don't knows the
answer to the question.; If I was rich, I would travel around the world.; Its raining since two
hours.; The dog chased the cat up a tree.; There is less people here than yesterday.; I look
forward to hear from you.; Do you have a table for four?; The museum is closed on Mondays.; My
phone battery is almost empty.; We should leave before it gets dark.; The children have already
eaten breakfast.; This bread tastes wonderful.; Everyone in the room were surprised.; The list of
items are on the desk.; Turn left at the second traffic light.; I have been waiting here for an
hour.; The concert was better than I expected.; Please close the window, it is cold.; Nobody told
me that the meeting was cancelled.; He works as a nurse in the city.; The river flows through the
valley.
"""
)

FACTS = _entries(
    """
Who wrote Romeo and Juliet?; What is the speed of light?; How many continents are there?; What is
the largest planet in the solar system?; When did World War II end?; What is the chemical symbol
of gold?; Who painted the Mona Lisa?; What is the boiling point of water?; What is the longest
river in the world?; Who was the first person on the moon?; What is the difference between a virus
and a bacterium?; Why is the sky blue?; What causes the seasons?; How far away is the sun?; What
is an atom made of?; Who discovered penicillin?; What language is spoken in Brazil?; What does DNA
stand for?; What is the tallest mountain on Earth?; How many bones does an adult human have?; What
is the currency of Japan?; Why do leaves change color in autumn?; What do bees eat?; Which animals
hibernate?; What is the Pythagorean theorem?; What is a prime number?; What is the largest ocean?;
Why is the sea salty?; What is the function of the liver?; What is photosynthesis?; How do magnets
work?; What are the three states of matter?; What is the difference between weather and climate?;
How does a microwave oven work?; What is the population of India?; When was the Internet
invented?; What is a black hole?; Who was Marie Curie?; What is the Great Barrier Reef?; Who was
Ada Lovelace?; What is the main ingredient of bread?; How many minutes are in a day?; What is an
ecosystem?; What is the smallest country in the world?; Who painted The Starry Night?; What is the
hardest natural substance?; How many strings does a violin have?; What is the freezing point of
water in Fahrenheit?; Who wrote Don Quixote?; What is the largest desert?; How many planets are
there?; Who was the first president of the United States?; What is the square root of 144?; What
does CPU stand for?; What is the capital of Italy?; Who composed the Four Seasons?; How many sides
does a hexagon have?; What is the main gas in the air?; Which metal is liquid at room
temperature?; What is the fastest land animal?; Who developed the theory of relativity?; What is
the currency of Switzerland?; Where are the pyramids of Giza?; What is the opposite of north?; How
many teeth does an adult have?; What is a synonym of happy?; Which organ pumps blood?; What is the
largest mammal?; Who was Nelson Mandela?; Who was Cleopatra?; Who was Isaac Newton?; Who was Frida
Kahlo?; Who was Alan Turing?; What is the Eiffel Tower made of?; What is the Amazon?; What is a
haiku?; What is sushi?; What is the stock market?; What is gravity?; Why do cats purr?; Why do
onions make us cry?; Why is ice slippery?; Why does bread go stale?; How do fish breathe?; How do
planes stay in the air?; How does soap work?; How are pearls made?; How do vaccines help?; What is
the tallest building?; What is the deepest lake?; Which country has the most people?; What is the
national animal of Scotland?; When was the printing press invented?; When did humans first land on
the moon?
"""
)

OPEN = _entries(
    """
Hi!; Hello, how are you?; What can you do?; Tell me a joke.; Who are you?; Thanks!; I feel a bit
sad today.; Can you help me plan my day?; I'm bored. What should I do?; What is your favorite
color?; Tell me something interesting.; Good morning!; I have an exam tomorrow and I am nervous.;
Should I learn Python or JavaScript first?; Give me some advice about saving money.; What should I
cook tonight?; Recommend me a book.; How do I make new friends?; I want to start running. How
should I begin?; Can you write code?; What do you think about art?; Help me choose a gift for my
mother.; How do I stay motivated?; I just moved to a new city.; Can you teach me something about
space?; Let's play a word game.; My computer is slow. What can I do?; How can I improve my
English?; What is the meaning of life?; I can't sleep at night. Any tips?; How do I write a good
resume?; I lost my keys.; What's new?; How was your day?; I need some motivation.; Tell me a
story.; Surprise me.; I'm hungry.; What's a good hobby?; My boss is never satisfied.; I got a
promotion!; I can't decide what to wear.; It's my birthday today.; I'm planning a trip.; I feel
lonely.; How do I say no politely?; My neighbor is too loud.; I need a nickname for my brother.;
Do you have feelings?; Should I take a gap year?; What makes a good friend?; How can I be more
confident?; I want to learn something new today.; Give me a riddle.; What is the best season?; I'm
nervous about a date.; Help me write a toast.; What should I watch tonight?; My plants keep
dying.; I spilled coffee on my laptop!; How do I apologize to someone?; What would you do with a
million dollars?; I think I'm getting a cold.; My son doesn't like school.; How do I remember
names better?; Are you a human?; Good night!
"""
)

COUNTRIES = _entries(
    """
Spain; Norway; Egypt; Argentina; Thailand; Kenya; Poland; Mexico; South Korea; Portugal; Vietnam;
Morocco; Peru; Finland; Turkey; Indonesia; Greece; Nigeria; Chile; Hungary; New Zealand; Iran;
Ireland; Cuba; Ethiopia; Pakistan; Austria; Colombia; Ukraine; the Philippines; Iceland; Nepal;
Belgium; the Netherlands; Sweden; Denmark; Romania; Bulgaria; Croatia; Serbia; Switzerland;
Israel; Jordan; Saudi Arabia; Iraq; Malaysia; Singapore; Cambodia; Mongolia; Kazakhstan; Sri
Lanka; Bangladesh; South Africa; Ghana; Tanzania; Algeria; Tunisia; Senegal; Madagascar; Bolivia;
Ecuador; Venezuela; Uruguay; Paraguay; Costa Rica; Panama; Jamaica; Guatemala; Fiji; Malta;
Cyprus; Estonia
"""
)

INVENTIONS = _entries(
    """
the light bulb; the steam engine; the bicycle; the World Wide Web; dynamite; the radio; the
microscope; the airplane; the piano; the vacuum cleaner; paper; the compass; the zipper; the
typewriter; the ballpoint pen; the elevator; the camera; the thermometer; chocolate; the
transistor; penicillin; the barometer; the parachute; the lawn mower; the umbrella; the washing
machine; the calculator; the pencil; the fountain pen; the stethoscope; the X-ray machine; the
helicopter; the submarine; the tractor; the dishwasher; the phonograph; the television; the laser;
the jet engine; the battery; the telegraph; the match; the lightning rod; the toothbrush
"""
)

ANIMALS = _entries(
    """
an octopus; a snail; an elephant; a penguin; a honey bee; a kangaroo; a blue whale; an owl; a
crocodile; a bat; a butterfly; a camel; a shark; an ant; a giraffe; a frog; a wolf; a scorpion; a
lion; a tortoise; a hedgehog; a dolphin; a jellyfish; an eagle; a parrot; a flamingo; a polar
bear; a panda; a koala; a sloth; a squirrel; a beaver; a fox; a deer; a horse; a cow; a goat; a
chameleon; a gecko; a salmon; a seahorse; a starfish; a lobster; a crab; a moth; a dragonfly; a
grasshopper; an earthworm; a raccoon; a badger; an otter; a seal; a walrus; a rhinoceros; a
hippopotamus
"""
)

EVENTS = _entries(
    """
the Berlin Wall fell; the French Revolution began; the Wright brothers first flew; the first
iPhone came out; the American Civil War ended; Columbus reached America; the Black Death reached
Europe; the Eiffel Tower was built; the Roman Empire fell in the West; World War I began; the
Soviet Union dissolved; the Panama Canal was opened; the first email was sent; the Magna Carta was
signed; the Great Fire of London broke out; India became independent; Napoleon lost at Waterloo;
the Euro was introduced; the first heart was transplanted; Constantinople fell; the Golden Gate
Bridge was opened; the Chernobyl reactor exploded; television came into homes; Mount Everest was
first climbed
"""
)

GOALS = _entries(
    """
save for a house; eat less sugar; read more books; throw a party; get a dog; change careers; grow
tomatoes on a balcony; travel to Japan; get up earlier; build a bookshelf; write a novel; spend
less time on my phone; learn to swim; lose some weight; make my apartment cozier; meet my
neighbors; teach my kids chess; learn the trumpet; host a dinner; paint my bedroom; start a blog;
bake sourdough; ride my bike to work; learn Spanish; fix a leaking tap; keep a diary; become a
nurse; open a small cafe; write better emails; drink more water; sleep eight hours; learn to
juggle; repair old furniture; plan a picnic; volunteer at a shelter; give a speech; study abroad;
train my puppy; organize my photos; quit smoking; start meditating; make a short film; grow herbs;
learn to code; buy a used car; pay off my debts; find a roommate; write a song; climb a mountain;
improve my handwriting; build a website
"""
)

NEWS = _entries(
    """
passed my driving test; got a new job; moved in with my partner; broke my arm; planted a garden;
failed an exam; adopted a kitten; burned dinner; had an argument with my brother; lost my wallet;
bought a bicycle; won a small prize; forgot a birthday; sold my car; started to paint; missed my
flight; finished a long book; got a bad haircut; became an uncle; saw a shooting star; found a
kitten in the garden; ran into an old friend; learned to bake bread; bought a house; quit my job;
got engaged; turned thirty; became a grandfather; went skydiving; cut my own hair; met my favorite
author; spilled paint on the carpet; won an argument; planted a tree; lost a bet; slept through my
alarm; joined a choir; wrote my first program; got lost in a foreign city; had a strange dream;
fixed my bicycle; graduated from college
"""
)
