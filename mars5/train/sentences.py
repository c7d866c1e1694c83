"""Text for the training corpus: everyday sentences from templates, carrier sentences, public texts.

Five sources are mixed, so that each covers what the others lack:

* templates: the sentences people say all day (requests, questions, times, places);
* carriers: random runs of frequent words, which give every common word many different neighbours;
* numbers written out: prices, times, dates, distances (`mars5.train.numbers`);
* public texts (`mars5.train.public_texts`), when they are installed, for free syntax and for
  words of all kinds.

Everything is drawn from one `random.Random`, so a seed names a corpus.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass

from mars5.train.numbers import numeric_sentence
from mars5.train.public_texts import MAX_CHARACTERS, read_fortunes, read_wordnet

CAPITALS = 0.05  # sentences with a word in capitals

SLOTS: dict[str, str] = {
    "name": "Anna Tom Mary John Sarah Peter Lucy James Emma David Kate Sam Laura Mike Helen Paul "
    "Julia Robert Alice Mark Susan Daniel Grace Simon Rose Henry Jane Ben Clara George",
    "person": "my_mother my_father my_sister my_brother the_doctor the_teacher our_neighbour "
    "my_friend the_driver the_manager your_wife her_husband the_children my_aunt the_baker "
    "his_boss our_guest the_nurse the_waiter a_stranger my_grandfather the_old_man the_girl "
    "the_boy everybody nobody someone the_police the_postman my_cousin the_farmer",
    "place": "the_station the_market the_office the_library the_park the_kitchen the_school "
    "the_hospital the_beach the_garden the_bank the_church the_theatre the_airport the_bridge "
    "the_restaurant the_hotel the_river the_village the_city the_shop the_museum the_bus_stop "
    "the_post_office home work town the_corner the_mountains the_lake the_sea the_cinema",
    "thing": "the_book the_key the_letter the_phone the_bag the_coat the_umbrella the_ticket "
    "the_car the_door the_window the_table the_chair the_lamp the_clock the_picture the_bottle "
    "the_box the_paper the_computer the_camera the_glass the_plate the_knife the_radio the_map "
    "the_shirt the_hat the_money the_bill the_newspaper the_bicycle the_house the_dog the_cat "
    "the_blanket the_mirror the_brush the_soap the_towel the_basket the_boat the_train",
    "food": "bread butter cheese some_soup an_apple a_sandwich coffee tea milk rice fish chicken "
    "salad chocolate a_cake an_egg some_water orange_juice potatoes pasta tomatoes honey "
    "breakfast dinner lunch a_biscuit ice_cream some_fruit a_banana onions a_glass_of_wine",
    "adj": "good bad big small old new young warm cold hot nice quiet loud happy sad tired busy "
    "easy hard cheap expensive clean dirty bright dark heavy light strong weak rich poor kind "
    "strange beautiful lovely important different possible terrible wonderful useful empty full "
    "wet dry fast slow late early ready open closed safe dangerous simple interesting funny",
    "time": "today tomorrow yesterday tonight this_morning this_afternoon this_evening "
    "next_week last_night on_Monday on_Tuesday on_Wednesday on_Thursday on_Friday on_Saturday "
    "on_Sunday at_noon at_midnight in_the_summer in_the_winter in_March in_October "
    "in_an_hour in_ten_minutes at_six_o'clock before_lunch after_dinner every_day at_once "
    "a_year_ago two_days_ago for_three_weeks all_day since_last_month now soon again",
    "number": "one two three four five six seven eight nine ten eleven twelve fifteen twenty "
    "thirty forty fifty sixty a_hundred a_thousand twenty-five sixteen eighteen",
    "verb": "open close find lose bring take buy sell carry wash fix break move clean hide send "
    "see forget remember like need want keep leave hold paint draw use check show",
    "act": "go_home take_a_walk sit_down wait_here call_me_back help_me come_in talk_to_you "
    "eat_something read_a_book play_outside sleep cook_dinner learn_to_swim drive_to_work "
    "catch_the_bus write_a_letter listen_to_music watch_a_film go_shopping stay_here "
    "ask_a_question start_again pay_the_bill turn_off_the_light make_some_tea feed_the_dog "
    "change_my_mind visit_us say_goodbye sing_a_song look_around try_it_again speak_slowly",
    "fact": "it_is_raining the_shop_is_closed I_am_hungry we_are_late the_train_is_late "
    "there_is_no_time it_was_too_cold nobody_was_home the_weather_is_fine she_was_right "
    "he_did_not_know they_had_already_left the_road_was_blocked I_missed_the_bus "
    "we_ran_out_of_milk the_light_went_out my_leg_hurts he_told_me_the_truth it_is_your_turn "
    "the_baby_is_asleep she_has_a_cold the_water_is_cold it_costs_too_much",
    "weather": "sunny cloudy windy rainy foggy snowy cool humid stormy pleasant freezing",
    "colour": "red blue green yellow white black brown grey pink orange purple golden",
}

TEMPLATES: tuple[str, ...] = (
    "Can you {verb} {thing}?",
    "Could you please {verb} {thing} {time}?",
    "Would you like {food}?",
    "Would you like {food} or {food}?",
    "I would like {food}, please.",
    "I want to {act}.",
    "I don't want to {act}.",
    "We have to {act} {time}.",
    "{name} wants to {act} {time}.",
    "Please {act}.",
    "Where is {thing}?",
    "Where did you put {thing}?",
    "I think {fact}.",
    "I am sorry, but {fact}.",
    "{fact}, so we should {act}.",
    "Because {fact}, {person} had to {act}.",
    "I left {thing} at {place}.",
    "I can't find {thing}.",
    "{name} left {thing} near {place}.",
    "How do I get to {place}?",
    "How far is it to {place}?",
    "How much is {thing}?",
    "How many people came to {place} {time}?",
    "What time does {place} open {time}?",
    "What are you doing {time}?",
    "What did {person} say?",
    "Why is {thing} so {adj}?",
    "Who is going to {act}?",
    "When will {person} {act}?",
    "The weather is {weather} {time}.",
    "It will be {weather} {time}.",
    "It was a {adj} day.",
    "It was a {adj} and {adj} night.",
    "{thing} is {adj}.",
    "{thing} is {adj} and {adj}.",
    "{thing} was too {adj} for me.",
    "This is a very {adj} idea.",
    "That sounds {adj} to me.",
    "{person} is very {adj}.",
    "{person} went to {place} {time}.",
    "{person} came back from {place} {time}.",
    "{person} will be at {place} {time}.",
    "{name} and {name} are at {place}.",
    "{name} lives near {place}.",
    "{name} has {number} {adj} cats.",
    "My {adj} friend {name} likes {food}.",
    "We bought {food} and {food} at {place}.",
    "There is {food} on the table.",
    "There are {number} people in the room.",
    "There was a {colour} car in front of {place}.",
    "She wore a {colour} dress and a {colour} hat.",
    "He painted the door {colour}.",
    "The {colour} one is mine.",
    "I have been waiting for {number} minutes.",
    "The bus leaves in {number} minutes.",
    "The train to {place} leaves at {number}.",
    "It takes {number} hours to get there.",
    "Turn left at {place}, then go straight on.",
    "Do you know {name}?",
    "Do you know where {thing} is?",
    "Do you have time to {act}?",
    "Did you {verb} {thing} {time}?",
    "Have you seen {thing}?",
    "Are you {adj}?",
    "Is it {adj} outside?",
    "Don't forget to {verb} {thing}.",
    "Don't worry, {fact}.",
    "Let's {act} {time}.",
    "Let me {verb} {thing} for you.",
    "If {fact}, we can {act}.",
    "When {fact}, I always {act}.",
    "Good morning, {name}.",
    "Good evening, {name}, how are you?",
    "Thank you for {food}, it was {adj}.",
    "Thank you very much for your help.",
    "Happy birthday, {name}!",
    "Be careful, {thing} is {adj}!",
    "Nobody knows why {fact}.",
    "Everyone said that {fact}.",
    "{name} told me that {fact}.",
    "I hope that {person} will {act} {time}.",
    "I never {verb} {thing} {time}.",
    "We should {verb} {thing} before we {act}.",
    "After work, {name} likes to {act}.",
    "You must not {verb} {thing}.",
    "My favourite food is {food}.",
    "My phone number ends in {number} {number}.",
    "The meeting starts at {number} and ends at {number}.",
    "He gave {person} {number} {colour} flowers.",
    "The children played near {place} {time}.",
)


@dataclass(frozen=True)
class Sentence:
    """What is said, and how it is written: MARS5's users write words in CAPITALS to stress them."""

    spoken: str
    written: str


class SentenceSource:
    """Draws speakable English sentences of 3-14 words; `held_out` sentences never come out."""

    def __init__(self, held_out: frozenset[str] = frozenset()) -> None:
        self._held_out = {normalise(s) for s in held_out}
        self._slots = {
            name: [w.replace("_", " ") for w in words.split()] for name, words in SLOTS.items()
        }
        self._fortunes, self._examples = read_fortunes(), read_wordnet()
        public = self._fortunes + self._examples
        counts = Counter(w for s in public for w in re.findall(r"[a-z']+", s.lower()))
        counts.update(w for v in self._slots.values() for p in v for w in p.lower().split())
        common = [(w, n) for w, n in counts.most_common(6000) if n > 1 and len(w) > 1]
        self._words = [w for w, _ in common]
        # A square root flattens Zipf's law: rare words are heard often enough to be learned.
        self._weights = [n**0.5 for _, n in common]

    def draw(self, rng: random.Random) -> Sentence:
        """One sentence; the same `rng` state gives the same sentence."""
        spoken = self._speakable(rng)
        words = spoken.split(" ")
        if rng.random() < CAPITALS:
            place = rng.randrange(len(words))
            words[place] = words[place].upper()
        return Sentence(spoken, " ".join(words))

    def _speakable(self, rng: random.Random) -> str:
        while True:
            kind = rng.random()
            if kind < 0.07:
                sentence = numeric_sentence(rng)
            elif kind < 0.30:
                sentence = self._from_template(rng)
            elif kind < 0.60 and self._fortunes:
                sentence = rng.choice(self._fortunes)
            elif kind < 0.85 and self._examples:
                sentence = rng.choice(self._examples)
            else:
                sentence = self._carrier(rng)
            if normalise(sentence) not in self._held_out and len(sentence) <= MAX_CHARACTERS:
                return sentence

    def _from_template(self, rng: random.Random) -> str:
        template = rng.choice(TEMPLATES)
        filled = re.sub(r"\{(\w+)\}", lambda m: rng.choice(self._slots[m[1]]), template)
        return filled[0].upper() + filled[1:]

    def _carrier(self, rng: random.Random) -> str:
        words = rng.choices(self._words, self._weights, k=rng.randint(3, 9))
        if len(words) > 5 and rng.random() < 0.4:
            words[len(words) // 2] += ","
        sentence = " ".join(words)
        return sentence[0].upper() + sentence[1:] + rng.choice("...?!")


def normalise(sentence: str) -> str:
    """Lower-case words only: the form in which sentences are compared."""
    return " ".join(re.findall(r"[a-z']+", sentence.lower()))
