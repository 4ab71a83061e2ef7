"""Our own sentences for the name tagger: letters, chats, charts, forms, news, and plain ones that name nobody.

`{person}`, `{org}` … are filled by `names_corpus.Maker`.
"""

from __future__ import annotations

from typing import Final

_SENTENCES: Final = """
{person} called about the invoice this morning.
Can you ask {given} to ring me back?
I spoke with {title} {surname} yesterday and she agreed.
This is {person} speaking, how can I help?
{given} and {given} are getting married in {city}.
The nurse told {given} that {given} could go home.
Hi, I'm {given}. I need help with my order.
hi im {given} from {city}
my name is {person} and i live in {city}, {state}
My name's {given}, what's yours?
You can call me {given}.
They call him {given}, but his real name is {person}.
Everyone at {org} knows {person}.
{person} joined {org} in {year} as {job}.
{person}, {job} at {org}, declined to comment.
"We did what we could," said {person}, {job} of {org}.
"It's a pity," {surname} told reporters in {city}.
According to {surname}, the plan will cost {digits} dollars.
{surname} argues that the study by {surname} and {surname} was flawed.
{surname} et al. showed this in {year}.
{person} ({year}-{year}) was a {group} painter born in {city}.
{person} is a {group} actor best known for the series directed by {person}.
The {group} ambassador, {person}, arrived in {country} on Monday.
She is {group} and grew up in {country}.
He speaks {group} and a little {group}.
Both of my grandparents were {group}.
I love {group} food, especially what they serve at {org}.
As a {group} citizen, do I need a visa for {country}?
Is it true that {group} people eat dinner late?
The {group} and the {group} delegations left the room.
{country} and {country} signed the treaty in {city}.
What is the capital of {country}? {city}.
We flew from {city} to {city} via {city}.
How far is {city} from {city}?
The weather in {city} has been terrible since May.
She studied at {org} before moving to {country}.
The train to {city} leaves at 8:15.
We'll be in {city}, {country} until next week.
They opened a second office in {city}, {code}.
He was born in {city}, {state} and raised in {city}.
{city} is lovely in spring.
{country}'s economy grew by 3% last year.
I've never been to {place}, but {given} has.
Has anybody from {place} called?
greetings from {city}
moving to {city} soon, any tips?
{org} announced a merger with {org}.
{org} is hiring in {city}.
Shares of {org} fell after {org} published its results.
I bought it from {org} last year.
My employer is {org}.
I have been with {org} for {age} years.
Please make the cheque out to {org}.
My insurance is through {org}.
She was transferred from {org} to {org}.
{org} v. {org}, {year}
The {org} representative told me to call back.
He quit {org} to found {org} with {person}.
I want to return a product I bought at {org}.
Can you connect me to someone at {org}?
Who runs {org}? I think it's {person}.
Applied at {org}, {org} and {org}; no answer yet.
{person} works for {org} in {city}.
I live at {address}.
i live at {address}
My address is {address}
Ship it to {address}, please.
Deliver to: {person}, {address}
Our new office: {address}.
The package went to {address} instead of {address}.
We moved from {street} to {street} in March.
Turn left on {street_name}, then right on {street_name}.
The accident happened on {street_name} near {street_name}.
The pharmacy on {street_name} closes at nine.
There's a fire at {street}, {city}!
Her mailing address is {address} and her phone is {phone}.
Home address: {address}
Address: {address}
Residence: {street}, {city}
Return address:\\n{person}\\n{address}
I used to live on {street_name} in {city}.
Is {street} in {city} or in {city}?
The house at {street} was sold to {person}.
Send the documents to {org}, {address}.
Visit us at {address} or call {phone}.
Where do you live? {address}
Where are you from? {place}
Name? {person}
Your full name, please? {person}.
And your surname? {surname}
First name? {given}
{person}
{given}
{last_first}
{org}
{address}
{city}
{person}\\n{address}
{person}\\n{org}\\n{address}
{person}\\n{job}, {org}\\n{phone}\\n{email}
{org}\\n{street}\\n{city} {zip}\\n{country}
{title} {person}\\n{street}\\n{zip} {city}
To: {person}\\nFrom: {person}\\nSubject: meeting
From: {person} <{email}>\\nTo: {person} <{email}>\\nDate: {date}
Dear {title} {surname},\\n\\nThank you for your letter of {date}.
Dear {given},\\n\\nI hope you are well.
Dear {person}:
Hello {given}, hope this finds you well.
Hey {given}! Long time no see.
Hi {given} and {given},
Good morning {title} {surname}.
Thanks, {given}
Best regards,\\n{person}
Kind regards,\\n{person}\\n{org}
Sincerely,\\n\\n{person}\\n{job}
Yours, {given}
Cheers\\n{given}
Signed: {person}
Signed electronically by {person}, MD on {date}
Dictated by: {person}, M.D.
cc: {person}, {person}
CC: {title} {surname}; {title} {surname}
Attn: {person}
Attending: {title} {person}
Referring physician: {person}, DO
PCP: {title} {surname}
Provider: {person}, NP
Seen by {title} {surname} in clinic.
Thank you, {title} {surname}, for referring this patient.
Patient: {person}
Patient: {last_first}
Patient name: {person}    DOB: {date}    MRN: {digits}
PATIENT: {last_first}   MRN {digits}
Pt {last_first} seen today for follow up
pt {person} c/o chest pain
Pt. {surname} states the pain is worse at night.
patient {person} was discharged to home on {date}
Name: {person}
Name: {last_first}
NAME: {last_first}
Full name: {person}
Member name: {person}, member ID {digits}
Subscriber: {person}
Beneficiary: {person}
Guarantor: {last_first}
Emergency contact: {person} (wife), {phone}
Emergency contact: his daughter {given}, {phone}
Next of kin: {person}, son
Mother: {person}; father: {person}
Her husband {given} brought her in.
His wife, {person}, is at bedside.
her daughter {given} takes care of the medications
The patient's mother, {given}, reports fever since Monday.
Mother ({person}) consents to treatment.
The patient lives with his brother {given} in {city}.
Lives with daughter {given} at {street}, {city}.
{title} {surname} is a {age}-year-old man with diabetes and hypertension.
{title} {surname} is a {age} y.o. female who presents with cough.
{person} is a {age}-year-old woman who was admitted to {org} on {date}.
{person}, {age}, was taken to {org} after a fall.
{person}, DOB {date}, SSN on file, needs a refill of metformin 500 mg.
Please schedule {person} for an MRI at {org}.
Transferred from {org} for further care.
Admitted to {org} with pneumonia.
She was followed at {org} by {title} {surname}.
Follow-up with {title} {surname} in 2 weeks.
I discussed the results with {title} {surname} of cardiology.
Consult requested by {title} {person} from {org}.
The surgery was performed by {title} {surname} and {title} {surname}.
{title} {surname} recommended that we start lisinopril.
Spoke to pharmacist {given} at {org}.
Specimen collected by {initials} at 10:15.
Patient {initials} was seen on {date}.
Reviewed with {initials}
Interpreter {given} present, patient speaks {group}.
Social history: retired {job}, lives in {city}, originally from {country}.
SOCIAL HISTORY: Works at {org}. Born in {country}.
The patient is a {group} male who travelled to {country} last month.
The patient recently returned from {place}.
{age} year old {group} woman living in {city}
Doctor: Good morning {title} {surname}, what brings you in?
Patient: I saw {title} {surname} at {org} last month.
Doctor: Who lives with you? Patient: My son {given}.
Doctor: And where do you work? Patient: At {org}, over in {city}.
Nurse: {given}, can you roll up your sleeve?
Agent: May I have your name? Customer: {person}.
Agent: Thank you, {given}. Is {street} still your address?
User: I'm {person}, my email is {email}
Caller identified himself as {person} of {street}.
Caller: {person}, {phone}
Reported by {person} on {date}
Witnesses: {person}, {person} and {person}.
Attendees: {person}, {person}, {given} {surname}, {person}
Present: {given}, {given}, {given}
Team: {given} ({city}), {given} ({city}), {given} ({country})
{given}, {given} and {given} won the relay.
{person} beat {person} in straight sets.
{person} scored twice as {city} beat {city} 3-1.
{person} will succeed {person} as {job}.
President {surname} met Prime Minister {surname} in {city}.
Senator {surname} voted against the bill.
Professor {surname} teaches history at {org}.
Judge {surname} dismissed the case.
Officer {surname} arrested {person} on {street_name}.
Uncle {given} and Aunt {given} are visiting.
Captain {surname} of the {org} team resigned.
The novel by {person} was translated into {group}.
Have you read {surname}'s new book?
I prefer {surname} to {surname}.
{person}'s car is parked outside.
{given}'s birthday is on {date}.
That was {given}'s idea, not {given}'s.
the {surname} family has lived in {city} for decades
The {surname}s are coming over for dinner.
It was written by {person} and produced by {person}.
The film stars {person}, {person} and {person}.
Her brother is the singer {person}.
Listen to {person}'s latest album.
Who is {person}?
Tell me about {person} and {org}.
Write a poem about {given} who lives in {city}.
Summarize the following email from {person} of {org}.
Draft a reply to {given} saying that I'm out of office.
Translate this to {group}: where is the station?
Is {person} related to {person}?
When was {person} born?
What did {person} do at {org}?
I am looking for {person}, she used to live on {street_name}.
Please remove {person} from the account and add {person}.
The card is in the name of {person}.
The account holder is {person}, {address}.
Transfer {digits} to {person}, IBAN on file.
Could you send {given} {surname} the contract?
I booked under {surname}.
Reservation for {surname}, party of four.
My wife {given} lost her card in {country}.
My landlord {title} {surname} lives at {street}.
I bought the tickets for {given}, {given} and myself.
{given}? Are you there?
{given}, please call me back!
{given}: hey, are you up?\\n{given}: yeah, what's going on?
{given}: I'm at {org}.\\n{given}: Which one, the one in {city}?
[10:32] {person}: can someone look at this?
@{given} please review
- {person}\\n- {person}\\n- {person}
1. {person}, {org}\\n2. {person}, {org}
Name\\tCity\\n{person}\\t{city}\\n{person}\\t{city}
{person},{age},{city},{email}
{"name": "{person}", "city": "{city}"}
"patient_name": "{last_first}", "facility": "{org}"
{person} | {org} | {city}, {country}
{last_first}  {date}  {digits}
PATIENT {last_first} ARRIVED FROM {city} BY AMBULANCE
{org} - {city}, {code}
{org}, {city}
{city}, {country}
{city}, {code} {zip}
{city}, {state}
{zip} {city}
Location: {city}, {state}
Hometown: {city}
Place of birth: {city}, {country}
Nationality: {group}
Ethnicity: {group}
Religion: {group}
Employer: {org}
Occupation: {job} at {org}
Hospital: {org}
Facility: {org}, {city}
Pharmacy: {org} on {street_name}, {phone}
School: {org}
Website of {org}: see below
{org} ({city}) was founded in {year} by {person}.
Founded in {year}, {org} serves customers in {country} and {country}.
The {org} building stands at {street}.
{org} sponsors the {city} marathon.
A spokesman for {org} said the {group} market is growing.
{surname} left {org} after {age} years.
On {date}, {surname} and his wife {given} moved to {city}.
In {year}, {person} emigrated from {country} to {country}.
{person} died in {city} in {year}.
The {city} police are searching for {person}, {age}, last seen on {street_name}.
{title} {surname} ({age}) from {city} won the lottery.
{title} {person} lives in {city} with {title} {surname}.
Thank {given} for the flowers!
Is {given} home? No, {given} went to {city}.
We named our dog {given}.
our baby girl {given} was born on {date}
{given} is such a kind person, they always help.
Why did {given} say that to {given}?
Ask {given} or {given} about it.
I told {given} not to worry about {given}.
i told {given} about it and {given} laughed
me and {given} went to {city} to see {person}
so {given} says to me, {given}, you need to see a doctor
It belongs to {given}.
The dance between {person} and {given} was lovely.
I like {given}'s dress.
Sold to {title} {person} of {city}.
Meet {person}, our new {job}.
As {surname} put it: never again.
In {surname}'s view, the {group} law was unjust.
Mayor {surname} of {city} praised {org}.
The road from {city} to {city} is closed.
Our trip: {city}, {city}, {city} and back to {city}.
Flights to {country} are cheaper in November.
I got food poisoning in {country}.
The earthquake in {country} destroyed {city}.
University of {city} Hospital called for {person}.
Pick up {given} at {street}, apartment 4.
I'm staying with {given} on {street_name}.
The bus stops at {street_name} and {street_name}.
{street}
{street}, {city}
{street}\\n{city}\\n{country}
Directions to {street}, {city}, {country}?
Corner of {street_name} and {street_name}, {city}
"""

TEMPLATES: Final = tuple(line.replace("\\n", "\n").replace("\\t", "\t") for line in _SENTENCES.strip().split("\n"))

_PLAIN: Final = """
How do I reset my password?
What is the dosage of Tylenol for a child?
CHIEF COMPLAINT: Shortness of breath.
PAST MEDICAL HISTORY: Hypertension, Diabetes Mellitus Type 2, Hyperlipidemia.
PAST SURGICAL HISTORY: Appendectomy, Cholecystectomy.
MEDICATIONS: Lisinopril 10 mg daily, Metformin 500 mg twice daily, Aspirin 81 mg.
ALLERGIES: Penicillin and Sulfa.
REVIEW OF SYSTEMS: Negative for fever, chills, nausea and vomiting.
FAMILY HISTORY: Mother with breast cancer. Father with coronary artery disease.
SOCIAL HISTORY: Denies tobacco, alcohol and drugs.
ASSESSMENT AND PLAN: Continue current medications. Follow up in two weeks.
Physical Examination: Heart regular rate and rhythm. Lungs clear to auscultation bilaterally.
Vital Signs: BP 120/80, HR 72, Temp 98.6, RR 16.
HEENT: Normocephalic, atraumatic. Pupils equal.
Doctor: Any chest pain? Patient: No, Doctor.
Doctor: Do you smoke? Patient: I quit five years ago.
Guest_family: She has been sleeping a lot.
Nurse: Please take a deep breath.
The patient was started on Coumadin and Plavix.
She takes Lipitor, Norvasc and Synthroid.
He was given Zofran and Toradol in the ER.
History of Parkinson's disease and Crohn's disease.
Hodgkin lymphoma, stage two, in remission.
Positive Murphy's sign, negative Homan's sign.
A Foley catheter was placed. Glasgow Coma Scale 15.
Alzheimer disease runs in the family.
MRI of the lumbar spine showed disc herniation at L4-L5.
CT of the abdomen and pelvis without contrast.
Labs: WBC 11.2, Hgb 13.4, Plt 250, Na 138, K 4.1.
Patient denies SI/HI. Mood is good.
No acute distress. Alert and oriented times three.
She had a C-section and a tubal ligation.
Will order a CBC, BMP and UA today.
Start Amoxicillin 875 mg by mouth every 12 hours for 10 days.
The Patient understands the risks and benefits.
Mild tenderness over the Achilles tendon.
Chronic Obstructive Pulmonary Disease
Gastroesophageal Reflux Disease (GERD)
Urinalysis and Culture pending.
Right Knee Arthroscopy
Type II Diabetes
Good morning! How can I help you today?
Sure! Here are some ideas for your essay.
Can I cancel my subscription?
I want to speak to a human.
WHY IS MY ACCOUNT LOCKED?
Thank you very much for your help.
Please find attached the report.
The following table shows the results.
In conclusion, Education is the key to Success.
Step 1: Preheat the oven. Step 2: Mix the flour and the sugar.
Python is a programming language; Java is another.
Use the Settings menu and press Save.
The Internet of Things (IoT) is growing.
Title: The Art of Cooking
Introduction. Methods. Results. Discussion.
What's the difference between Bitcoin and Ethereum?
import numpy as np
SELECT name FROM users WHERE id = 1
I can't believe Mark is a verb too, will you mark it?
May I have the bill? I will pay in May.
Grace and patience are virtues; hope and faith, too.
The rose in the garden is a joy.
Christmas and Easter are holidays.
He just turned 40 and feels great.
Words such as Justice, Freedom and Truth are written with capitals.
My Mom and Dad are coming. Grandma too.
Yes. No. Maybe. OK. Thanks!
Hello there, Sir. Hello, Madam.
LOL that is SO funny!!!
As an AI language model, I cannot do that.
Note: This is an Example.
Oh my God, Jesus Christ!
Ask your Doctor or Pharmacist before use.
Step mother and step father were informed.
Labor Day weekend was quiet.
Nothing to report.
"""
PLAIN: Final = tuple(_PLAIN.strip().split("\n"))

JOBS: Final = (
    "accountant actor architect baker carpenter chef clerk consultant dentist director economist editor electrician engineer farmer"
    " firefighter journalist lawyer librarian manager mechanic musician nurse painter pharmacist photographer pilot plumber"
    " programmer receptionist scientist secretary singer surgeon teacher translator waiter writer"
).split() + [
    "chief executive",
    "head of marketing",
    "chief financial officer",
    "Software Engineer",
    "vice president",
    "Sales Manager",
    "CEO",
    "CTO",
]

COMPANIES: Final = (
    "Apple|Microsoft|Google|Amazon|Facebook|Meta|Netflix|Tesla|Intel|IBM|Oracle|Cisco|Nvidia|AMD|Samsung|Sony|Toyota|Honda|Nissan|BMW|"
    "Volkswagen|Siemens|Bosch|SAP|Nestlé|Novartis|Roche|Pfizer|Merck|Moderna|AstraZeneca|GlaxoSmithKline|Sanofi|Bayer|Johnson & Johnson|"
    "Walmart|Target|Costco|Kroger|Walgreens|CVS|CVS Pharmacy|Rite Aid|Home Depot|Lowe's|Best Buy|IKEA|Starbucks|McDonald's|Burger King|"
    "Subway|KFC|Pizza Hut|Domino's|Coca-Cola|Pepsi|PepsiCo|Procter & Gamble|Unilever|Kellogg's|General Motors|Ford|General Electric|"
    "Boeing|Airbus|Lockheed Martin|Exxon|ExxonMobil|Chevron|Shell|BP|Total|Delta|United Airlines|American Airlines|Lufthansa|British Airways|"
    "Ryanair|FedEx|UPS|DHL|Uber|Lyft|Airbnb|Twitter|LinkedIn|Spotify|Adobe|Salesforce|PayPal|Visa|Mastercard|American Express|"
    "Goldman Sachs|JPMorgan Chase|Morgan Stanley|Bank of America|Wells Fargo|Citibank|Citigroup|HSBC|Barclays|Deutsche Bank|Credit Suisse|"
    "UBS|Santander|BNP Paribas|Société Générale|Aetna|Cigna|Humana|UnitedHealthcare|Kaiser Permanente|Anthem|Blue Cross Blue Shield|"
    "Medicare|Mayo Clinic|Cleveland Clinic|Johns Hopkins|Mount Sinai|Massachusetts General Hospital|Harvard|Harvard University|Yale|Stanford|"
    "MIT|Princeton|Columbia University|Oxford University|Cambridge University|UCLA|NYU|NASA|FBI|CIA|FDA|CDC|NIH|WHO|UNICEF|UNESCO|NATO|"
    "United Nations|European Union|World Bank|World Health Organization|Red Cross|Greenpeace|Amnesty International|The New York Times|"
    "Washington Post|Reuters|Associated Press|BBC|CNN|Fox News|NBC|Al Jazeera|Disney|Warner Bros|Universal Studios|Paramount|Nike|Adidas|"
    "Puma|Gucci|Prada|Zara|H&M|Deloitte|KPMG|PwC|Ernst & Young|McKinsey|Accenture|Nokia|Ericsson|Huawei|Alibaba|Tencent|Xiaomi|Lenovo|Dell|"
    "HP|Verizon|AT&T|T-Mobile|Comcast|Vodafone|Telefónica|Red Hat|GitHub|OpenAI|Anthropic|DeepMind|Manchester United|Real Madrid|FC Barcelona|"
    "New York Yankees|Chicago Bulls|Metropolitan Museum|Supreme Court|Congress|Department of Justice|Department of Health|Social Security Administration|"
    "Veterans Affairs|Salvation Army|YMCA|Planned Parenthood|Quest Diagnostics|LabCorp|Medtronic|Abbott|Siemens Healthineers|Philips"
).split("|")
