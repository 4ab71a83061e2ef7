"""What people write before a number to say what it is: "MRN: …", "member ID is …", "S/N …"."""

from __future__ import annotations

import re
from typing import Final

# Type → what names it. The order matters: the first that fits at a place wins, so the narrower stand first.
# CODE is no finding: a clinical code, a dose or a count, whose number says nothing of a person.
_NAMES: Final[dict[str, str]] = {
    "CODE": r"""(?<!\w)code(?==["']\d{5}|["']\s?:\s?["']\d{5})
        |icd(?:[-\s]?(?:9|10|11))?(?:[-\s]?(?:cm|pcs))?|cpt|hcpcs|ndc|loinc|snomed(?:[-\s]?ct)?|sctid|rxnorm|rxcui|cui
        |drg|ms-?drg
        |atc\ code|hgnc|umls|rs(?=\d)|pmid|pmcid|doi|isbn|issn|nct(?=\d)|clinical\ ?trials\.gov|fda|nda|anda|ein\ form
        |form|cfr|usc
        |(?:diagnosis|procedure|billing|revenue|modifier|condition|error|status|http|drug|dx|visit|level|taxonomy
        |place\ of\ service)\ codes?
        |chapter|section|figure|fig|table|page|version|step|grade|stage|article|title""",
    "FAX_NUMBER": r"""fax(?:es|ed)?(?:\ (?:number|no|line|it|to|us))?|facsimile|telefax|fx|f(?=:)""",
    "US_NPI": r"""npi|national\ provider\ identifier|provider\ (?:npi|identifier)""",
    "MEDICAL_LICENSE": r"""dea(?:\ (?:registration|certificate|license))?
        |(?:medical|physician'?s?|nurs(?:e|ing)(?:'?s)?|rn|np|md|do|pharmac(?:y|ist)(?:'?s)?|dental|dentist'?s?|state
        |board|professional
        |provider|practitioner|therapist'?s?)\ (?:board\ )?(?:licen[sc]e|certification|certificate|registration)|gmc
        |state\ lic""",
    "US_DRIVER_LICENSE": r"""driv(?:er|ing|ers|er's|ers')(?:'?s)?\ ?(?:licen[sc]e|lic|permit|id)|(?<!/)d\.?l\.?|dln?(?<!/dl)|cdl
        |licen[sc]e\ to\ drive|state\ id|dmv\ id""",
    "LICENSE_PLATE": r"""(?:licen[sc]e|number|registration|vehicle|car)\ (?:plates?|tags?)|plates?|vehicle\ registration
        |lpn|tag\ number|tag(?=\s*(?:\#|no|number|:))""",
    "VEHICLE_ID": r"""vin|vehicle\ (?:identification|id|identifier|serial)|chassis""",
    "US_PASSPORT": r"""passport(?:\ book|\ card)?""",
    "UK_NINO": r"""national\ insurance|nino|ni\ number""",
    "CA_SIN": r"""social\ insurance|sin(?=\s*(?:\#|no|number|:))""",
    "US_SSN": r"""ssn|ss\#|soc(?:ial)?(?:\.|)\ ?sec(?:urity)?|socials?|soc|ss\ (?:no|number)""",
    "US_ITIN": r"""itin|individual\ taxpayer(?:\ identification)?""",
    "US_PROVIDER_TAX_ID": r"""(?:provider|practice|federal|employer|billing)?\ ?(?:tax\ ?(?:id|identification|payer\ id)
        |ein|tin)""",
    "US_MBI": r"""mbi|medicare(?:\ beneficiary)?(?:\ identifier)?|hicn?|health\ insurance\ claim""",
    "US_PRIOR_AUTHORIZATION_NUMBER": r"""(?:prior|pre)[-\s]?auth(?:orization)?|authorization|auth""",
    "US_CLAIM_NUMBER": r"""(?:insurance\ |medical\ )?claims?|clm|eob""",
    "US_PRESCRIPTION_NUMBER": r"""rx|prescription|script|refill""",
    "US_REFERRAL_NUMBER": r"""referral""",
    "US_HEALTH_INSURANCE_MEMBER_ID": r"""health\ (?:insurance\ )?card|(?:member|subscriber|policy|insurance|insured
        |beneficiary|payer|plan|group
        |medicaid|medi-cal|enrollee|dependent
        |health\ plan|health\ insurance|coverage|certificate\ holder|policy\ ?holder|cardholder|hmo|ppo|tricare|aetna
        |cigna|humana|kaiser
        |anthem|bcbs|blue\ (?:cross|shield)(?:\ blue\ shield)?|united\ ?healthcare|uhc|grp|bin|pcn|hpid?)(?:'?s)?
        (?:\ (?:member|subscriber|policy|group|card|plan|beneficiary|identification|identifier))?""",
    "ABA_ROUTING_NUMBER": r"""(?:aba|bank)?\ ?routing|aba|rtn""",
    "IBAN_CODE": r"""iban""",
    "CREDIT_CARD": r"""(?:credit|debit|payment|bank|visa|mastercard|master\ card|amex|american\ express|discover|flex
        |hsa)\ ?card|card|visa|mastercard|amex|cc""",
    "US_BANK_NUMBER": r"""(?:bank|checking|savings|deposit|brokerage)\ (?:account|acct)|account\ at\ the\ bank
        |direct\ deposit""",
    "ACCESSION_NUMBER": r"""accession|acc(?=\s*(?:\#|no|number|:))|specimen|sample|lab\ order|order|requisition|path
        (?:ology)?\ (?:case|report)|case|slide
        |(?:imaging|radiology)\ (?:study|exam|order)|exam|surgical\ path""",
    "BIOMETRIC_ID": r"""(?:fingers?|thumb|palm|voice|hand|foot|face|iris|retina)\ ?[-\s]?(?:print|scan|template|geometry|vein)s?
        |(?:retinal?|iris|facial|biometric|voice)(?:\ (?:scan|template|recognition|signature|hash|identifier|profile|image
        |sample))*|dna\ (?:profile|sample)
        |genetic\ (?:profile|id)|fingerprints?|voiceprints?|faceprints?""",
    "PHOTO_ID": r"""(?:full[-\s]face\ )?(?:photo(?:graph)?s?|pictures?|image|headshot|mugshot|portrait|selfie)(?:\ (?:file
        |reference|ref|name))?|img|dicom""",
    "DEVICE_ID": r"""(?:device|implant|pacemaker|pump|icd\ device|lead|generator|monitor|meter|cgm|cpap|wearable
        |stimulator|prosthesis|defibrillator|valve|stent
        |insulin\ pump|glucometer|ventilator|hearing\ aid|unit|equipment|asset)?(?:'?s)?\ ?(?:serial|s/n|sn|ser)
        |udi|imei|meid|imsi|iccid|(?:device|implant|equipment|asset|hardware|pacemaker|wearable|pump)(?:'?s)?\ (?:id
        |identifier|identification|tag|number|no)
        |(?:lot|batch)(?=\s*(?:\#|no|number|:|\d))""",
    "ACCOUNT_NUMBER": r"""(?:patient\ |billing\ |hospital\ |guarantor\ |customer\ |utility\ |statement\ )?(?:accounts?
        |accts?|a/c)
        |(?:billing|invoice|customer|client|guarantor|statement|receipt|transaction|confirmation|encounter|visit|episode
        |admission|appointment|booking)
        |csn|har|fin|contact\ serial""",
    "MEDICAL_RECORD_NUMBER": r"""mrn?s?|m\.r\.n\.?|mr(?=\s*(?:\#|no|number|num))|(?:medical|health|patient|hospital|clinic
        |electronic|emr|ehr|e-?chart)\ ?(?:record|chart|file|registration)s?
        |(?:patient|pt|chart|hospital|unit|record|emr|ehr|epic|cerner|e?mpi|person|clinic|file|case\ file|med\ rec)
        (?:'?s)?(?=\s*(?:\#|no|number|num|id|ids|ident))
        |med(?:ical)?\.?\ rec(?:ord)?s?|empi|chart|nhs|hospital\ number|urn?(?=\s*(?:\#|no|number|:))""",
    "CERTIFICATE_NUMBER": r"""(?:birth|death|marriage|baptism(?:al)?|vaccination|immunization|citizenship
        |naturali[sz]ation)\ certificate|certificate|certification|cert|licen[sc]e|lic|registration
        |permit|green\ card|alien\ registration|a-number|uscis|visa\ number""",
    "UNIQUE_ID": r"""(?:study|trial|research)|(?:study\ |research\ |trial\ )?(?:subject|participant|enrollment|donor
        |recipient|screening|randomi[sz]ation)|employee|emp|badge|staff|student|user|login|inmate
        |military|service|dod|edipi|veteran|va\ file|voter|ident(?:ity|ification)?|national|tax|id|identifier|reference
        |ref|tracking|ticket|incident|record|docket|file|pin|serial|registry""",
    "PHONE_NUMBER": r"""(?:tele)?phones?|tel|cell(?:ular|phone)?|mobile|mob|landline|pager|beeper|call(?:\ (?:me|us|him
        |her|them|back))?|text|whatsapp|contact|reach|reachable|answering|messages?|sms|dial|registered|ring|(?-i:[Pp]h|PH)|hotline
        |helpline|office|home|work|[ptmch](?=:)""",
}

TYPES: Final = tuple(_NAMES)
# Words of a label may be parted by what keys of JSON have, and a key may go on in camel case: "member_id", "memberId".
LABELS: Final = {
    name: re.compile(
        rf"(?<![A-Za-z])(?P<{name}>{names})(?:(?![A-Za-z])|(?-i:(?<=[a-z])(?=[A-Z])))".replace(r"\ ", r"[\ _-]"),
        re.IGNORECASE | re.VERBOSE,
    )
    for name, names in _NAMES.items()
}

# What may stand between the label and its number: "number", "is", a colon, "#", "on file as".
_LINK: Final = (
    r"""[\s:;\#=.,?\-–—()\[\]"'*_/|`>]*"""
    r"(?:(?:is|was|are|were|of|no|nos|number's|numbers|number|num|nbr|nr|id|ids|identifier|identification|code|card|as|reads|ends|ending|in|with|on|file|"
    r"last|four|digits?|changed|updated|to|listed|recorded|registered|assigned|under|the|this|my|your|his|her|their|our|patient|patient's|for|"
    r"value|string|key|tag|full|new|old|current|and|or|here|it's|its|it|think|believe|i|well|sure|yes|yeah|okay|so|um|uh|s|bearing|at|reading|date|record|called|labeled|labelled|stamped|"
    r"(?-i:[A-Z]{2})|shows?|found|using|template|enrolled|scan|image|hash|records?|results|copy|copies|them|it|send|sent|directly|attention|documents?|notes?|reports?|book|plate|plates|account|policy|holder|name|reference|ref|serial)\b[\s:;\#=.,?\-–—()\[\]\"'*_/|`>]*){0,7}"
)
LINK: Final = re.compile(_LINK + r"\Z", re.IGNORECASE)
