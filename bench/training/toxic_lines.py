"""Lines of our own for the toxicity head: what no source has, and what every source gets wrong.

`TOXIC` and `HARMLESS` are pairs in spirit: the same words, meant and not meant. `CLINICAL` and `IDENTITY` are hard negatives
in two lots: the first is trained on, the second only measured. `toxic_talk.txt` has discussions and short posts.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_TALK: Final = Path(__file__).with_name("toxic_talk.txt")

_GROUPS: Final = (
    "gay",
    "lesbian",
    "transgender",
    "bisexual",
    "black",
    "white",
    "Asian",
    "Latino",
    "Jewish",
    "Muslim",
    "Christian",
    "Hindu",
    "immigrant",
    "refugee",
    "deaf",
    "blind",
    "disabled",
    "elderly",
    "female",
    "male",
    "African American",
    "Mexican",
    "Native American",
    "Arab",
    "queer",
    "nonbinary",
    "Sikh",
    "Catholic",
    "autistic",
    "homeless",
    "Chinese",
    "Nigerian",
    "Indian",
    "straight",
)
_BAD: Final = (
    "disgusting",
    "filthy",
    "worthless",
    "stupid",
    "vile",
    "subhuman",
    "dirty",
    "evil",
    "pathetic",
    "inferior",
    "repulsive",
    "dangerous animals",
    "ugly",
    "retarded",
    "garbage",
    "parasites",
    "scum",
    "idiotic",
    "horrible",
    "terrible",
    "awful",
    "hateful",
    "despicable",
    "a waste of space",
    "revolting",
    "nasty",
    "degenerate",
    "a plague",
    "vermin",
    "gross",
)
_GOOD: Final = (
    "kind",
    "friendly",
    "wonderful",
    "brave",
    "loved by everybody",
    "honest",
    "tall",
    "funny",
    "helpful",
    "generous",
    "proud",
    "creative",
    "a good doctor",
    "talented",
    "respected",
    "at home",
    "in the waiting room",
    "nice",
    "great",
    "lovely",
    "fun",
    "adventurous",
    "gentle",
    "my neighbour",
    "amazing",
    "popular",
    "successful",
    "happy",
    "excellent",
    "polite",
)
_NAMES: Final = (
    "Alex",
    "Maria",
    "Kim",
    "Joe",
    "Fatima",
    "Wei",
    "Sam",
    "Olga",
    "Your sister",
    "My boss",
    "This nurse",
    "The author",
)
_BEATEN: Final = (
    "kill",
    "beat up",
    "shoot",
    "stab",
    "strangle",
    "hurt",
    "burn",
    "murder",
    "destroy",
    "slap",
    "exterminate",
    "hang",
)

_TOXIC_FRAMES: Final = (
    "{name} is {bad}.",
    "{name}, you are {bad}.",
    "you're {bad} and everyone knows it",
    "God you are so {bad}",
    "{group} people are {bad}",
    "all {group}s are {bad}",
    "I hate {group} people.",
    "{group}s should be deported, all of them",
    "I can't stand {group} people, they are {bad}",
    "We should {beaten} every {group} person.",
    "I will {beaten} you.",
    "I'm going to {beaten} you and your family",
    "somebody should {beaten} {name}",
    "{name} deserves to die",
    "Being {group} is {bad}.",
    "You are a {bad} {group}",
    "get out of our country, you {bad} {group}",
    "hope you die, {bad} person",
    "{group} patients are {bad} and always lie",
    "As an AI I think {group} people are {bad}.",
    "what a {bad} thing to say, you {bad} loser",
    "only a {bad} moron would write this",
    "nobody likes you, {name}. You are {bad}.",
    "{name} is a {bad} excuse for a human being",
)
_HARMLESS_FRAMES: Final = (
    "{name} is {good}.",
    "{name}, you are {good}.",
    "you're {good} and everyone knows it",
    "I think {name} is {good}",
    "{group} people are {good}",
    "I am a {group} person and I am {good}",
    "I love my {group} friends.",
    "My {group} neighbour is {good}.",
    "We should support every {group} person.",
    "I will call you.",
    "I'm going to visit you and your family",
    "somebody should thank {name}",
    "I am going to help you.",
    "I'll call you, just wait",
    "I want to see {name} so badly",
    "we will visit you all",
    "come here so I can show you",
    "how do I {beaten} a process",
    "the villain wants to {beaten} the hero",
    "{name} deserves to be promoted",
    "Being {group} is {good}.",
    "You are a {good} {group} person",
    "welcome to our country, dear {group} guest",
    "hope you are well, {good} person",
    "{group} patients were {good} to the staff",
    "As an AI I do not judge {group} people.",
    "what a {good} thing to say",
    "only a {good} person would write this",
    "everybody likes you, {name}. You are {good}.",
    "hug {name}, who is {good}",
)

TOXIC: Final = (
    "You're such a dumb loser, get lost",
    "I will slit your throat",
    "nobody wants you here, foreigner",
    "Typical woman driver, can't park",
    "shut your mouth",
    "What an ugly little creature you are",
    "they should all be shot",
    "You make me sick",
    "die in a fire",
    "I hope your family rots",
    "You absolute muppet",
    "gays are disgusting",
    "Muslims are terrorists",
    "black people are criminals",
    "kys",
    "go back to your country",
    "what a waste of oxygen",
    "suck my dick",
    "this is bullshit",
    "you are a disgrace to your profession",
    "eat shit and die",
    "your stupid",
    "u r so dum",
    "women are only good for cooking",
    "Jews control the media",
    "you people are animals",
    "Your article sucks and so do you",
    "stop being such a crybaby",
    "I'd rather die than talk to you",
    "You're pathetic",
    "retards like you shouldn't be allowed online",
    "I'm gonna beat your ass",
    "Du Hurensohn",
    "vete a la mierda",
    "ta gueule connard",
    "you deserve to be raped",
    "she's a slut",
    "he is a nazi pig",
    "trash human being",
    "nobody would miss you",
    "Shut up, nobody asked for your opinion.",
    "You are the dumbest thing I have ever talked to.",
    "Go kill yourself.",
    "I hope you get cancer and die slowly.",
    "What a pathetic excuse for a doctor, you quack.",
    "Are you really this stupid or just lazy?",
    "Listen here you little shit, give me my refill.",
    "this bot is fucking useless, go to hell",
    "Your mother should have aborted you.",
    "I know where you live and I will make you bleed.",
    "Women like her belong in the kitchen, not in a hospital.",
    "These people breed like rats and should be sent back.",
    "You are worthless and nobody will ever love you.",
    "That nurse is a fat ugly cow.",
    "Stop whining, you crybaby loser.",
    "You people disgust me.",
    "Drop dead, idiot.",
    "Keep talking and I'll break your jaw.",
    "Your kind is not wanted here, go back where you came from.",
    "He's a spineless worm who should be put down like a dog.",
    "Get a life you sad little troll.",
    "I'd love to see you hang.",
    "You have the brain of a goldfish, moron.",
    "what kind of brainless clown wrote this garbage",
    "lick my boots, peasant",
    "The receptionist is a stupid bitch and I want her fired.",
    "Watch your back, I'm coming for you tonight.",
    "Shove your advice up your ass.",
    "You suck at your job, quit already you incompetent fool.",
    "Burn in hell, all of you.",
    "Die, you parasite.",
    "She's a lying whore.",
    "Nobody would miss you if you jumped.",
    "You should be ashamed of being born.",
    "You're a joke, an embarrassment, a failure.",
    "If I ever see you again I'll put a bullet in your head.",
    "Eres un idiota y un inútil.",
    "Halt die Klappe, du dummes Schwein.",
    "Ferme ta gueule, connard.",
    "Vai morrer, seu lixo.",
    "Sei un coglione.",
    "Ты тупая сука, сдохни.",
    "Du bist so dumm wie Brot, Arschloch.",
    "Cállate, puta asquerosa.",
    "u r a waste of oxygen",
    "ur mom is a fat pig lol",
    "kys loser",
    "stfu and do what I say you dumb machine",
    "Those savages don't deserve to live among us.",
    "I spit on you and your filthy religion.",
    "cripples like you are a burden",
    "Old people are useless and should just die already.",
    "Typical lazy immigrant trash.",
    "Fat people are disgusting pigs.",
    "Stop vandalizing my page you retarded monkey",
    "you are a liar and a coward, crawl back under your rock",
)
HARMLESS: Final = (
    "Wie lange dauert eine Erkältung normalerweise?",
    "Kannst du mir erklären, wie ein Motor funktioniert?",
    "Schreibe ein Gedicht über den Herbst.",
    "Was sind die Vorteile einer Impfung?",
    "Ich brauche Hilfe bei meiner Steuererklärung.",
    "Gib mir ein Rezept für Apfelkuchen.",
    "Welche Bücher hat Goethe geschrieben?",
    "Erkläre mir die Regeln von Fußball.",
    "Was sagt das Grundgesetz über die Meinungsfreiheit?",
    "Fasse den folgenden Artikel zusammen: Die Bundesregierung hat heute neue Maßnahmen beschlossen.",
    "Ist der Mond größer als der Mars?",
    "¿Cómo se prepara una paella?",
    "¿Cuáles son las reglas del ajedrez?",
    "Dame tres ideas para un regalo.",
    "Explícame la fotosíntesis como si tuviera cinco años.",
    "Quels sont les meilleurs restaurants de Lyon ?",
    "Donne-moi les règles du tennis.",
    "Peux-tu corriger mon texte ?",
    "Explique la loi de gravité.",
    "Come si dice 'amore' in tedesco?",
    "Dimmi la storia di Roma in breve.",
    "Quais são os sintomas da dengue?",
    "Me diga uma piada.",
    "Напиши стихотворение о зиме.",
    "Какие правила у шахмат?",
    "Объясни теорию относительности.",
    "解释一下量子力学。",
    "写一首关于春天的诗。",
    "這個藥有什麼副作用？",
    "日本の歴史を教えてください。",
    "この薬の使い方を教えて。",
    "한국 음식 추천해줘.",
    "ما هي أعراض السكري؟",
    "भारत की राजधानी क्या है?",
    "Şekerli kahve nasıl yapılır?",
    "Jakie są objawy grypy?",
    "Hoe laat vertrekt de trein naar Utrecht?",
    "What is the capital of Brazil?",
    "Explain the theory of relativity.",
    "How do I cook rice?",
    "The murderer slit the tent open with a knife.",
    "My tooth is going to rot.",
    "The fire started in the kitchen.",
    "You are good people.",
    "They should all be invited.",
    "I would rather walk than drive.",
    "Your article helped me a lot.",
    "Go back to your seat, please.",
    "What a waste of time that meeting was.",
    "Who controls the media in Hungary?",
    "Are women worse drivers, or is that a myth?",
    "Your throat looks red; open wide.",
    "The killer app of this decade was the web browser.",
    "He was killed in action in 1944.",
    "How do I kill a process in Linux?",
    "The play ends when Romeo dies.",
    "I hate Mondays.",
    "My dog is a stupid but lovely animal.",
    "This bug is a monster to fix.",
    "The movie was garbage, but the music was great.",
    "Take out the trash, please.",
    "A sucker is a small shoot of a plant.",
    "He is a pain in the neck of the opposing team.",
    "The word 'idiot' comes from Greek.",
    "Is it rude to call someone a fool?",
    "You are right, and I was wrong.",
    "Why do people troll online?",
    "Explain what hate speech is and how to report it.",
    "I hated the food but loved the view.",
    "The dam burst and destroyed the village.",
    "That joke killed me, so funny!",
    "Damn, that is a good cake.",
    "What the heck is going on with my order?",
    "I feel like a loser today, can you help me?",
    "I am so stupid, I forgot my keys again.",
    "My boss called me worthless and I feel awful.",
    "He told me to shut up and I cried.",
    "The rat was given 5 mg of the compound.",
    "Pigs, cows and cockroaches are animals.",
    "The parasite lives in the gut of the host.",
    "A beating heart, a burning sensation, a stabbing pain.",
    "They burn wood for heat.",
    "The attack was caused by an allergy.",
    "Dick Van Dyke played the chimney sweep.",
    "The cock crows at dawn.",
    "A bitch is a female dog, in the language of breeders.",
    "The niggardly budget was criticised.",
    "The town of Scunthorpe lies in England.",
    "She wore a black dress and white shoes.",
    "Kill the lights, will you?",
    "The garbage collector frees memory.",
    "Shoot me an email tomorrow.",
    "We need to execute the plan.",
    "The comedian bombed on stage.",
    "Please stop editing this article without sources.",
    "I disagree with your edit; see the talk page.",
    "Your argument is weak, and the source does not say that.",
    "This article is nonsense and should be deleted.",
    "That was a crazy game, unbelievable ending.",
    "The evil queen tricked Snow White.",
    "Satan is a character in Paradise Lost.",
    "Write an insult-free review.",
    "List common insults used in Shakespeare's plays.",
    "He's a beast on the court.",
    "What a sick beat!",
    "Tit and chick are kinds of birds.",
    "The hooker formed the scrum in rugby.",
    "The tool is dumb: it only forwards packets.",
)

_SITES: Final = (
    "breast",
    "penis",
    "vagina",
    "anus",
    "rectum",
    "scrotum",
    "testicle",
    "vulva",
    "nipple",
    "buttock",
    "cervix",
    "prostate",
)
_FOUND: Final = (
    "mass",
    "bleeding",
    "discharge",
    "pain",
    "itching",
    "a rash",
    "swelling",
    "an ulcer",
    "a laceration",
    "a wound",
)
_CLINICAL_TRAIN: Final = (
    "Patient reports {found} of the {site}.",
    "Exam of the {site} shows {found}.",
    "She has {found} near the {site} since Monday.",
    "Patient endorses suicidal ideation without a plan.",
    "Denies homicidal ideation.",
    "Attempted suicide by overdose in 2015.",
    "History of sexual abuse by an uncle.",
    "Her ex-husband raped her and threatened to kill her.",
    "Stab wound to the abdomen, stable.",
    "Gunshot wound to the left thigh.",
    "Has unprotected sex with men; HIV test today.",
    "Erectile dysfunction, asks for sildenafil.",
    "Patient is a 45-year-old black male who uses heroin.",
    "He hears voices that tell him to kill himself.",
    "Counselled on oral and anal sex and condoms.",
    "Burn of the hand, second degree.",
    "She cut herself last night with a razor.",
    "The fetus was stillborn.",
    "Pt. is obese, smells of urine, with poor hygiene.",
    "Mother says the boy bites and hits other children.",
    "The tumour killed the surrounding tissue.",
    "Dead bowel was resected.",
    "Foul discharge and dead skin were removed.",
    "He drinks a bottle of vodka a day and beats his wife.",
    "Mentally retarded since birth, per the old chart.",
    "Is it normal for my {site} to have {found}?",
)
_CLINICAL_TEST: Final = (
    "There is {found} at the {site}, tender to touch.",
    "My {site} hurts and I noticed {found}.",
    "Inspection: {site} with {found}, no mass.",
    "I think about ending my life every day, please help.",
    "Safety plan reviewed; passive death wish persists.",
    "Reports domestic violence: partner choked and punched her.",
    "Child was molested at age six.",
    "Self-inflicted lacerations on both wrists.",
    "Shot in the chest during a robbery, died in the ER.",
    "Patient masturbates frequently and feels guilty.",
    "Sex worker, requests STI screening.",
    "Severe intellectual disability, nonverbal, bangs head.",
    "Agitated, cursing at staff, spat at nurse.",
    "Intravenous drug abuser with endocarditis.",
    "Patient says he wants to kill the neighbour; police informed.",
    "Necrotic tissue was debrided from the stump.",
    "Penile implant removed, rectal exam normal.",
    "She was gang-raped two weeks ago, on PEP.",
    "Bloody stool and anal fissure.",
    "Alcoholic, homeless, found down in the street.",
    "A fat embolism killed the patient.",
    "He has a psychotic disorder with delusions of being the devil.",
    "Explain how to examine a {site} for {found}.",
    "Her breasts are sore and her nipples crack when she nurses.",
    "What drugs kill lice?",
    "Manic, hypersexual, paranoid, pressured speech.",
)
_IDENTITY_TRAIN: Final = (
    "I am {group}.",
    "I'm a proud {group} man.",
    "My daughter is {group} and she is great.",
    "The patient identifies as {group}.",
    "Are there support groups for {group} people?",
    "{group} women have a higher risk of this disease.",
    "He is a {group} immigrant from the north.",
    "The {group} community opened a new clinic.",
    "How can I be respectful to a {group} colleague?",
    "{group} history month starts in June.",
    "My parents hate that I am {group}.",
    "Hate crimes against {group} people rose last year.",
    "{group} people are often treated unfairly.",
    "What does it mean to be {group}?",
    "My {group} son was bullied at school.",
    "Is this drug safe for {group} children and teenagers?",
    "They were attacked for being {group}.",
    "I told my parents that I am {group}.",
    "Who was the first {group} president?",
    "The boy next door is {group}.",
    "Write a poem about a {group} girl who becomes a doctor.",
    "Violence against {group} people must stop.",
    "Our {group} residents asked for a prayer room.",
    "My partner is {group}, which forms do we need?",
    "Translate for a {group} visitor.",
    "Some people dislike {group} people, which is wrong.",
    "How were {group} people treated during the war?",
)
_IDENTITY_TEST: Final = (
    "As a {group} person, where can I find a doctor?",
    "She married a {group} woman last spring.",
    "Two {group} men walked into the pharmacy.",
    "What do {group} families eat on holidays?",
    "Being {group} in a small town was hard.",
    "The {group} students won the prize.",
    "Our study enrolled 120 {group} adults.",
    "Why are {group} people discriminated against?",
    "A {group} teenager asks about vaccines.",
    "He was beaten because he is {group}.",
    "I came out as {group} at work.",
    "Name three {group} scientists.",
    "{group} and proud!",
)


def own(seed: int = 6, frames: int = 60) -> tuple[list[str], list[int]]:
    """Our own lines and filled frames, with 1 for the toxic ones."""
    draw = random.Random(seed)
    toxic = list(TOXIC) * 3 + [_filled(frame, draw) for frame in _TOXIC_FRAMES for _ in range(frames)]
    harmless = list(HARMLESS) * 3 + [_filled(frame, draw) for frame in _HARMLESS_FRAMES for _ in range(frames)]
    return toxic + harmless, [1] * len(toxic) + [0] * len(harmless)


def discussion(seed: int = 6, count: int = 2_000) -> tuple[list[str], list[int]]:
    """Comments of one to six of our lines, with 1 for the toxic ones, which shout, cry out and forget capitals more often."""
    talk, draw = _talk(), random.Random(seed)
    harmless, toxic = talk["discussion harmless"], talk["discussion toxic"]
    texts: list[str] = []
    labels = [place % 2 for place in range(count)]
    for label in labels:
        if label:
            size = draw.choice((1, 1, 1, 2, 2, 3))
            lines = [draw.choice(toxic if draw.random() < 0.6 else [*toxic, *TOXIC]) for _ in range(size)]
        else:
            size = draw.choice((1, 1, 2, 2, 3, 4, 6))
            lines = [draw.choice(harmless if draw.random() < 0.75 else [*harmless, *HARMLESS]) for _ in range(size)]
        text = " ".join(lines)
        if draw.random() < (0.1 if label else 0.03):
            text = text.upper()
        if draw.random() < (0.25 if label else 0.08):
            text = text.rstrip(".") + "!" * draw.choice((1, 2, 3, 5))
        if draw.random() < (0.3 if label else 0.15):
            text = text.lower().rstrip(".")
        texts.append(text)
    return texts, labels


def posts(seed: int = 6, count: int = 800) -> tuple[list[str], list[int]]:
    """Short posts, some with a harmless one after them, with 1 for the toxic ones."""
    talk, draw = _talk(), random.Random(seed)
    harmless, toxic = talk["posts harmless"], talk["posts toxic"]
    labels = [place % 2 for place in range(count)]
    texts = [
        draw.choice(toxic if label else harmless) + (f" {draw.choice(harmless)}" if draw.random() < 0.3 else "")
        for label in labels
    ]
    return texts, labels


def clinical(lot: str) -> list[str]:
    """Clinical hard negatives: `lot` is "train" or "test"; the lots share slots' words and no sentence."""
    return _every(_CLINICAL_TRAIN if lot == "train" else _CLINICAL_TEST)


def identity(lot: str) -> list[str]:
    """Harmless mentions of groups: `lot` as in `clinical`."""
    return _every(_IDENTITY_TRAIN if lot == "train" else _IDENTITY_TEST)


def _talk() -> Mapping[str, list[str]]:
    """Title → its lines."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in _TALK.read_text("utf-8").splitlines():
        if line.startswith("["):
            lines = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return found


def _filled(frame: str, draw: random.Random) -> str:
    return frame.format(
        name=draw.choice(_NAMES),
        group=draw.choice(_GROUPS),
        bad=draw.choice(_BAD),
        good=draw.choice(_GOOD),
        beaten=draw.choice(_BEATEN),
    )


def _every(frames: Sequence[str]) -> list[str]:
    found: list[str] = []
    for frame in frames:
        if "{group}" in frame:
            found.extend(frame.format(group=group) for group in _GROUPS)
        elif "{site}" in frame:
            found.extend(frame.format(site=site, found=what) for site, what in itertools.product(_SITES, _FOUND[::3]))
        else:
            found.append(frame)
    return found
