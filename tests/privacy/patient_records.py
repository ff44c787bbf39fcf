"""Made-up records of patients with the places of every identifier in them, English and Chinese, seeded.

The values do not come from the tables of the recognisers: names, streets and numbers are drawn from lists of their own,
and check digits are computed here by other code.
"""

from __future__ import annotations

import random
from typing import NamedTuple

FAMILY = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦申尤毕聂焦向柳邢岳齐梅莫庄辛管祝左涂谷祁时舒耿牟卜路詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄单包司柏宁柯阮桂闵欧阳上官司马诸葛"  # noqa: E501
DOUBLE = ("欧阳", "上官", "司马", "诸葛", "慕容", "皇甫", "尉迟", "令狐")
GIVEN_CHARS = "伟芳娜敏静丽强磊军洋勇艳杰涛明超秀英霞平刚桂文辉玲建国华玉红梅鹏飞宇浩欣怡子轩梓涵雨泽思琪嘉豪佳慧志晓东海燕春兰凤翔云龙林峰雪松立新永福德生金宝成才俊凯波斌宁彬健旭晨曦若琳诗琪雅婷婉清心怡乐天长庚学礼广义家辉正南开泰有为大海小红一鸣三思"  # noqa: E501
FIRST = "James Mary Aisha Wei Dmitri Chidi Fatima Sean Giulia Bjorn Priya Mateo Hana Olga Kwame Lucia Tariq Ingrid Pavel Yuki".split()  # noqa: E501, SIM905
LAST = "Okonkwo Smith Brzezinski O'Connor Nguyen McAllister Haddad Lindqvist Fernandez Kowalczyk Stone Park Young Achterberg Mbeki Fitzgerald-Hall Petrov Iyer Nakamura Walsh".split()  # noqa: E501, SIM905
CITIES = [
    ("浙江省", "杭州市", "西湖区"),
    ("广东省", "广州市", "天河区"),
    ("四川省", "成都市", "武侯区"),
    ("山东省", "临沂市", "沂水县"),
    ("", "北京市", "海淀区"),
    ("", "上海市", "浦东新区"),
    ("内蒙古自治区", "包头市", "昆都仑区"),
    ("湖南省", "长沙市", "宁乡市"),
]
ROADS = "文三路 解放大道 中山北路 人民东街 五一路 花园巷 建设西路 学院路 朝阳街 滨江大道".split()  # noqa: SIM905
WORK = "Maple Oak Washington Lakeview Elm Cedar Hill Sunset Franklin Chestnut".split()  # noqa: SIM905
TOWNS = [("Springfield", "IL"), ("Portland", "OR"), ("San Antonio", "TX"), ("Ann Arbor", "MI"), ("Boise", "ID")]
MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905

WIDE = {i: i + 0xFEE0 for i in range(0x21, 0x7F)}


class Record(NamedTuple):
    """A text and (kind, start, end) of each identifier in it."""

    text: str
    gold: list[tuple[str, int, int]]
    form: str
    """Which template it is of, and how its numbers are disguised."""


def records(count: int, seed: int = 0) -> list[Record]:
    """So many records, every third with disguised numbers."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        template = TEMPLATES[number % len(TEMPLATES)]
        disguise = DISGUISES[number // len(TEMPLATES) % (3 * len(DISGUISES)) // 3] if rng.random() < 0.34 else None
        made.append(_fill(template, rng, disguise, f"{number % len(TEMPLATES)}"))
    return made


def _fill(template: str, rng: random.Random, disguise: str | None, form: str) -> Record:
    """Put values into a template of {kind} and {kind:maker} holes; the same hole twice holds the same value."""
    text, gold, known = "", [], {}
    for piece in template.replace("{", "\0{").replace("}", "}\0").split("\0"):
        if not piece.startswith("{"):
            text += piece
            continue
        hole = piece[1:-1]
        if hole not in known:
            maker = hole.split("#")[0]
            value = MAKERS[maker](rng)
            kind = maker.split(":")[0]
            known[hole] = _disguise(value, disguise, rng) if disguise and kind in DISGUISED else value
        kind = hole.split("#")[0].split(":")[0]
        if kind != "noise":
            gold.append((kind, len(text), len(text) + len(known[hole])))
        text += known[hole]
    return Record(text, gold, f"{form} {disguise or 'plain'}")


def _disguise(value: str, how: str, rng: random.Random) -> str:
    if how == "wide":
        return value.translate(WIDE)
    if how == "invisible":
        at = rng.randrange(1, len(value))
        return value[:at] + "\u200b" + value[at:]
    return value.replace("-", "\u2011")


DISGUISES = ("wide", "invisible", "dash")
DISGUISED = ("resident_id", "phone", "ssn", "nhs_number", "record_number", "bank_card", "email", "date", "passport")


def chinese_name(rng: random.Random) -> str:
    family = rng.choice(DOUBLE) if rng.random() < 0.05 else rng.choice(FAMILY[:-8])
    return family + "".join(rng.choice(GIVEN_CHARS) for _ in range(1 if rng.random() < 0.25 else 2))


def english_name(rng: random.Random) -> str:
    first, last = rng.choice(FIRST), rng.choice(LAST)
    return rng.choice([f"{first} {last}", f"{first} {rng.choice('ABCDEFG')}. {last}"])


def last_first(rng: random.Random) -> str:
    last, first = rng.choice(LAST), rng.choice(FIRST)
    return rng.choice([f"{last}, {first}", f"{last.upper()}, {first.upper()}"])


def resident_id(rng: random.Random) -> str:
    area = rng.choice(["110105", "330106", "440106", "510107", "371323", "650102", "530112", "211002"])
    body = (
        f"{area}{rng.randrange(1930, 2020)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
        f"{rng.randrange(1000):03d}"
    )
    remainder = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(body)) % 11
    number = body + "10X98765432"[remainder]
    return rng.choice([number, number, number, f"{number[:6]} {number[6:14]} {number[14:]}"])


def old_resident_id(rng: random.Random) -> str:
    return f"{rng.choice(['110105', '330106', '440106'])}{rng.randrange(30, 99)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}{rng.randrange(1000):03d}"  # noqa: E501


def mobile(rng: random.Random) -> str:
    number = f"1{rng.choice('3456789')}{rng.randrange(10**9):09d}"
    forms = [number, number, f"{number[:3]} {number[3:7]} {number[7:]}", f"{number[:3]}-{number[3:7]}-{number[7:]}"]
    return rng.choice([*forms, f"+86 {number}", f"+86-{number[:3]}-{number[3:7]}-{number[7:]}"])


def landline(rng: random.Random) -> str:
    number = f"{rng.randrange(2, 9)}{rng.randrange(10**7):07d}"
    area = rng.choice(["010", "021", "0571", "0755", "028"])
    return rng.choice(
        [f"{area}-{number}", f"({area}){number}", f"{area} {number}", f"{area}-{number}转{rng.randrange(99)}"]
    )


def us_phone(rng: random.Random) -> str:
    area, office, line = (
        rng.randrange(201, 989),
        rng.choice([rng.randrange(200, 555), rng.randrange(556, 999)]),
        rng.randrange(10**4),
    )
    forms = [f"({area}) {office}-{line:04d}", f"{area}-{office}-{line:04d}", f"+1 {area} {office} {line:04d}"]
    return rng.choice([*forms, f"{area}.{office}.{line:04d}", f"+44 20 7946 {line:04d}"])


def ssn(rng: random.Random) -> str:
    area = rng.choice([rng.randrange(1, 666), rng.randrange(667, 900)])
    return f"{area:03d}-{rng.randrange(1, 100):02d}-{rng.randrange(1, 10**4):04d}"


def nhs_number(rng: random.Random) -> str:
    while True:
        body = f"{rng.randrange(400, 800)}{rng.randrange(10**6):06d}"
        check = (11 - sum((10 - i) * int(digit) for i, digit in enumerate(body)) % 11) % 11
        if check < 10:
            number = f"{body}{check}"
            return rng.choice([number, f"{number[:3]} {number[3:6]} {number[6:]}"])


def bank_card(rng: random.Random) -> str:
    body = rng.choice(["622202", "621700", "622848"]) + f"{rng.randrange(10**12):012d}"
    total = sum(sum(divmod(int(digit) * (2 if i % 2 == 0 else 1), 10)) for i, digit in enumerate(reversed(body)))
    number = f"{body}{-total % 10}"
    return rng.choice([number, " ".join(number[i : i + 4] for i in range(0, 19, 4))])


def record_number(rng: random.Random) -> str:
    return rng.choice(
        [
            f"{rng.randrange(10**7):08d}",
            f"ZY{rng.randrange(10**6):06d}",
            f"{rng.randrange(10**4, 10**6)}",
            f"A{rng.randrange(10**5):05d}-{rng.randrange(9)}",
        ]
    )


def passport(rng: random.Random) -> str:
    return rng.choice([f"E{rng.randrange(10**8):08d}", f"G{rng.randrange(10**8):08d}", f"EA{rng.randrange(10**7):07d}"])


def email(rng: random.Random) -> str:
    return f"{rng.choice(FIRST).lower()}.{rng.choice('xyz')}{rng.randrange(99)}@{rng.choice(['163.com', 'qq.com', 'gmail.com', 'mail.bjmu.edu.cn'])}"  # noqa: E501


def _day(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(1935, 2025), rng.randrange(1, 13), rng.randrange(1, 29)


def chinese_date(rng: random.Random) -> str:
    year, month, day = _day(rng)
    return rng.choice(
        [
            f"{year}年{month}月{day}日",
            f"{year}年{month:02d}月{day:02d}日",
            f"{year}-{month:02d}-{day:02d}",
            f"{year}.{month}.{day}",
            f"{year}/{month}/{day}",
            f"{month}月{day}日",
        ]
    )


def english_date(rng: random.Random) -> str:
    year, month, day = _day(rng)
    name = MONTHS[month - 1]
    return rng.choice(
        [
            f"{month:02d}/{day:02d}/{year}",
            f"{name} {day}, {year}",
            f"{day} {name[:3]} {year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{name[:3]} {day}, {year}",
            f"{day:02d}-{name[:3]}-{year}",
        ]
    )


def old_age(rng: random.Random) -> str:
    return str(rng.randrange(90, 106))


def chinese_address(rng: random.Random) -> str:
    province, city, district = rng.choice(CITIES)
    house = f"{rng.choice(ROADS)}{rng.randrange(1, 999)}号"
    room = rng.choice(
        [
            "",
            f"{rng.randrange(1, 30)}栋{rng.randrange(1, 5)}单元{rng.randrange(101, 2800)}室",
            f"{rng.randrange(1, 9)}号楼{rng.randrange(101, 999)}"[:-3] + "1层",
        ]
    )
    return rng.choice([province + city + district + house + room, city + district + house + room, district + house])


def us_address(rng: random.Random) -> str:
    town, state = rng.choice(TOWNS)
    street = (
        f"{rng.randrange(1, 9999)} {rng.choice(WORK)} "
        f"{rng.choice(['St', 'Street', 'Ave', 'Road', 'Blvd.', 'Lane', 'Drive'])}"
    )
    return rng.choice(
        [
            f"{street}, {town}, {state} {rng.randrange(10000, 99999)}",
            f"{street}, Apt {rng.randrange(1, 99)}, {town}, {state}",
            street,
        ]
    )


def noise(rng: random.Random) -> str:
    """What medicine writes that looks like an identifier and is none."""
    return rng.choice(NOISE)(rng)


NOISE = [
    lambda rng: f"{rng.randrange(50, 1000)} mg po bid",
    lambda rng: f"BP {rng.randrange(90, 180)}/{rng.randrange(50, 110)} mmHg",
    lambda rng: f"WBC {rng.randrange(1000, 20000)}/uL",
    lambda rng: f"白细胞{rng.randrange(2, 30)}.{rng.randrange(100):02d}×10^9/L",
    lambda rng: f"血糖{rng.randrange(3, 20)}.{rng.randrange(10)}mmol/L",
    lambda rng: f"NCT{rng.randrange(10**8):08d}",
    lambda rng: f"PMID: {rng.randrange(10**7, 4 * 10**7)}",
    lambda rng: f"10.1056/NEJMoa{rng.randrange(10**6, 10**7)}",
    lambda rng: rng.choice(["BRCA1 c.5266dupC", "EGFR L858R", "rs1799853", "CYP2C19*2", "TP53 R175H", "HLA-B*57:01"]),
    lambda rng: rng.choice(["ICD-10 E11.9", "ICD-10 I63.902", "EC 3.4.21.75", "CAS 50-78-2", "ATC B01AC06"]),
    lambda rng: f"{rng.randrange(1950, 2024)}年",
    lambda rng: f"in {rng.randrange(1950, 2024)}",
    lambda rng: f"血小板{rng.randrange(50, 400)}-{rng.randrange(400, 800)}",
    lambda rng: f"{rng.randrange(10, 90)}岁",
    lambda rng: f"剂量 {rng.randrange(100, 500)} {rng.randrange(100, 500)} {rng.randrange(1000, 5000)} IU",
    lambda rng: f"国药准字H{rng.randrange(10**8):08d}",
    lambda rng: f"0.{rng.randrange(10**9, 10**10)}",
    lambda rng: "高血压患者应遵从医生和护士的建议",
    lambda rng: "谢谢医生，和医生沟通后向主任汇报",
    lambda rng: "Hodgkin lymphoma, Crohn disease and Parkinson disease",
    lambda rng: "Patient Health Questionnaire-9 score 12",
]

MAKERS = {
    "name:zh": chinese_name,
    "name:en": english_name,
    "name:last": last_first,
    "name:surname": lambda rng: rng.choice("王李张刘陈杨赵黄周吴徐孙胡朱高林"),
    "name:english_surname": lambda rng: rng.choice(LAST),
    "resident_id": resident_id,
    "resident_id:old": old_resident_id,
    "phone:mobile": mobile,
    "phone:landline": landline,
    "phone:us": us_phone,
    "ssn": ssn,
    "nhs_number": nhs_number,
    "bank_card": bank_card,
    "record_number": record_number,
    "passport": passport,
    "email": email,
    "date:zh": chinese_date,
    "date:en": english_date,
    "age": old_age,
    "address:zh": chinese_address,
    "address:us": us_address,
    "noise": noise,
}

TEMPLATES = [
    "姓名：{name:zh}，性别：男，年龄：56岁，住院号：{record_number}，入院日期：{date:zh}。{noise}",
    "患者{name:zh}，女，{noise}，因反复咳嗽于{date:zh}入院。家住{address:zh}，联系电话{phone:mobile}。",
    "身份证号：{resident_id}，手机：{phone:mobile}，{noise}。患者{name:zh}，{date:zh}就诊。",
    "患者身份证{resident_id:old}，座机{phone:landline}。{noise}，{noise#2}。",
    "患者，男，{age}岁，{noise}。住址：{address:zh}。病历号{record_number}。",
    "主诉：胸闷3天。{noise}。主治医师：{name:zh}，护士：{name:zh#2}。记录时间：{date:zh}",
    "您好，我叫{name:zh}，电话是{phone:mobile}，{noise}，请{name:surname}医生看看。",
    "银行卡号{bank_card}，医保卡号：{record_number}，邮箱{email}。{noise}",
    "{name:zh}女士{date:zh}来院复查，{noise}。{name:surname#2}主任建议继续服药。",
    "护照号：{passport}，门诊号：{record_number}，签名：{name:zh}  {date:zh}",
    "{resident_id} {phone:mobile} {noise}",
    "出院记录：{name:zh}先生于{date:zh}出院，{noise}。随访电话：{phone:landline}。送检医师：{name:zh#2}。",
    "Patient Name: {name:last}  DOB: {date:en}  MRN: {record_number}. {noise}.",
    "Mr. {name:en} was admitted on {date:en}. {noise}. Call {phone:us} or {email}.",
    "{noise}. The patient lives at {address:us}. SSN {ssn}. Seen by Dr. {name:english_surname} on {date:en}.",
    "NHS number: {nhs_number}. {noise}. Referring physician: {name:en}. Phone: {phone:us}",
    "A {age}-year-old man, {noise}, medical record number {record_number}, discharged {date:en}.",
    "Contact: {name:en}, {address:us}, {phone:us}. {noise}. Passport No. {passport}.",
    "My name is {name:en} and my email is {email}; {noise}. Electronically signed by: {name:en#2}, MD",
    "{noise}. {noise#2}. {noise#3}. {noise#4}.",
]

BARE = [
    "今天和{name:zh}一起去复诊，{noise}。",
    "Yesterday {name:en} complained of chest pain; {noise}.",
]
"""Names with nothing beside them: what context cannot find."""


def bare_records(count: int, seed: int = 0) -> list[Record]:
    """Records whose names have no title or label."""
    rng = random.Random(seed)
    return [_fill(BARE[number % len(BARE)], rng, None, "bare") for number in range(count)]
