"""The data sets that CareLlama, MedicalGPT and the XTuner tutorial name, as plain data; for the fields see `catalog`.

Rows are as the sets' pages state them, some rounded. Licences too; "not stated" is not "free": ask the authors.
"""

from __future__ import annotations

from typing import Any

HUB = "hf://datasets/"
GITHUB = "https://github.com/"
DRIVE = "https://drive.google.com/file/d/"
APACHE = "apache-2.0"
ALPACA = '{"instruction", "input", "output"}'
_CHATDOCTOR = "The list names its Google Drive; this is a copy of it on the hub."
_CBLUE = "It is part of CBLUE: sign in at tianchi.aliyun.com, accept the terms, download the set"

# Text to learn as it stands.
PRE_TRAINING: dict[str, dict[str, Any]] = {
    "pt_llm_pretrain_finetune": {
        "place": f"{GITHUB}X-jun-0130/LLM-Pretrain-FineTune",
        "files": "data_pretrain/",
        "shape": "text",
        "map_fn": "pretrain",
    },
    "pt_medical": {
        "place": f"{HUB}shibing624/medical/pretrain/train_encyclopedia.json",
        "rows": 360_000,
        "licence": APACHE,
        "shape": '{"text"}',
        "map_fn": "pretrain",
    },
    "pt_medical_books": {
        "place": f"{HUB}shibing624/medical/pretrain/medical_book_zh.json",
        "rows": 8_475,
        "licence": APACHE,
        "shape": '{"text"}',
        "map_fn": "pretrain",
    },
    "pt_zysj": {
        "place": "https://www.zysj.com.cn/",
        "files": "a web site of books on Chinese medicine",
        "shape": "text",
        "map_fn": "pretrain",
        "get": "The site offers no download; save pages that you may use as .txt",
    },
    "pt_tcm_ancient_books": {
        "place": f"{GITHUB}xiaopangxia/TCM-Ancient-Books",
        "files": "*.txt, GB18030",
        "rows": 700,
        "shape": "text",
        "map_fn": "pretrain",
    },
}

# Questions and answers.
FINE_TUNING: dict[str, dict[str, Any]] = {
    "medical": {
        "place": f"{HUB}shibing624/medical/finetune/train_zh_0.json",
        "rows": 1_950_000,
        "licence": APACHE,
        "shape": ALPACA,
        "map_fn": "alpaca",
    },
    "medical_en": {
        "place": f"{HUB}shibing624/medical/finetune/train_en_1.json",
        "language": "en",
        "rows": 110_000,
        "licence": APACHE,
        "shape": ALPACA,
        "map_fn": "alpaca",
    },
    "medicalgpt_finetune": {
        "place": f"{GITHUB}shibing624/MedicalGPT",
        "files": "data/finetune/ (today: data/sft/medical_sft_1K_format.jsonl)",
        "rows": 1_000,
        "licence": APACHE,
        "shape": '{"conversations": [{"from", "value"}, ...]}',
        "map_fn": "sharegpt",
    },
    "icliniq": {
        "place": "lavita/ChatDoctor-iCliniq",
        "language": "en",
        "rows": 7_320,
        "shape": '{"input", "answer_icliniq", "answer_chatgpt", "answer_chatdoctor"}',
        "columns": {"input": "input", "output": "answer_icliniq"},
        "map_fn": "default",
        "get": _CHATDOCTOR,
    },
    "healthcaremagic": {
        "place": "lavita/ChatDoctor-HealthCareMagic-100k",
        "language": "en",
        "rows": 112_000,
        "shape": ALPACA,
        "map_fn": "alpaca",
        "get": _CHATDOCTOR,
    },
    "genmedgpt": {
        "place": f"{DRIVE}1nDTKZ3wZbZWTkFMBkxlamrzbNz0frugg/view",
        "files": "GenMedGPT-5k.json",
        "language": "en",
        "rows": 5_452,
        "shape": ALPACA,
        "map_fn": "alpaca",
    },
    "shennong_tcm": {
        "place": "michaelwzhu/ShenNong_TCM_Dataset",
        "rows": 113_000,
        "licence": APACHE,
        "shape": '{"query", "response"}',
        "columns": {"input": "query", "output": "response"},
        "map_fn": "default",
    },
    "chatmed_consult": {
        "place": "michaelwzhu/ChatMed_Consult_Dataset",
        "rows": 549_000,
        "licence": "cc-by-4.0",
        "shape": '{"query", "response"}',
        "columns": {"input": "query", "output": "response"},
        "map_fn": "default",
    },
    "toyhom": {
        "place": f"{GITHUB}Toyhom/Chinese-medical-dialogue-data",
        "files": "Data_数据/*/*.csv, GB18030",
        "rows": 792_099,
        "licence": "mit",
        "shape": "department,title,ask,answer",
        "columns": {"input": "ask", "output": "answer"},
        "map_fn": "default",
    },
    "billgpt": {
        "place": "https://huggingface.co/datasets/BillGPT/Chinese-medical-dialogue-data",
        "files": "the dialogues of toyhom, on the hub",
        "shape": "department,title,ask,answer",
        "columns": {"input": "ask", "output": "answer"},
        "map_fn": "default",
    },
    "cmedqa2": {
        "place": f"{GITHUB}zhangsheng93/cMedQA2",
        "files": "question.zip, answer.zip: two tables, to be joined by question_id",
        "rows": 108_000,
        "licence": "research only",
        "shape": "question_id,content; ans_id,question_id,content",
    },
    "huatuo26m_lite": {
        "place": "FreedomIntelligence/Huatuo26M-Lite",
        "rows": 178_000,
        "licence": APACHE,
        "shape": '{"question", "answer", ...}',
        "map_fn": "question_answer",
    },
    "huatuo_26m": {
        "place": f"{GITHUB}FreedomIntelligence/Huatuo-26M",
        "files": "links: the consultations are addresses of pages; huatuo26m_lite is what can be had as text",
        "rows": 26_504_088,
        "shape": '{"questions": [[text]], "answers": [address]}',
    },
    "huatuo_encyclopedia": {
        "place": "FreedomIntelligence/huatuo_encyclopedia_qa",
        "rows": 364_000,
        "licence": APACHE,
        "shape": '{"questions": [[text, ...]], "answers": [text]}',
    },
    "webmedqa": {
        "place": f"{GITHUB}hejunqing/webMedQA",
        "files": "medQA.train.txt, by a link to a drive",
        "rows": 63_284,
        "licence": APACHE,
        "shape": "tab-separated: id, label, department, question, answer",
    },
    "pubmedqa": {
        "place": f"{GITHUB}pubmedqa/pubmedqa",
        "files": "data/ori_pqal.json",
        "language": "en",
        "rows": 1_000,
        "licence": "mit",
        "shape": '{"QUESTION", "CONTEXTS", "LONG_ANSWER", "final_decision"} by PMID',
        "map_fn": "pubmedqa",
    },
    "cmcqa": {
        "place": f"{GITHUB}WENGSYX/CMCQA",
        "files": "by a link to a drive",
        "rows": 1_300_000,
        "shape": "dialogues of a patient and a doctor",
    },
    "qizhen": {
        "place": f"{GITHUB}CMKRG/QiZhenGPT",
        "files": "data/train/sft-20k.json",
        "rows": 20_000,
        "licence": "gpl-3.0",
        "shape": ALPACA,
        "map_fn": "alpaca",
    },
    "llm_pretrain_finetune_sft": {
        "place": f"{GITHUB}X-jun-0130/LLM-Pretrain-FineTune",
        "files": "data_sft/",
        "shape": '{"text", "answer"}',
        "columns": {"input": "text", "output": "answer"},
        "map_fn": "default",
    },
    "medical_dialogue_system": {
        "place": f"{GITHUB}UCSD-AI4H/Medical-Dialogue-System",
        "files": "by links to a drive; Chinese 3,400,000 dialogues, English 260,000",
        "language": "zh/en",
        "rows": 3_660_000,
        "shape": "text files of dialogues",
    },
    "medical_dialog": {
        "place": "https://huggingface.co/datasets/UCSD26/medical_dialog",
        "files": "a script over the files of medical_dialogue_system, which is not run",
        "language": "zh/en",
        "shape": "dialogues",
    },
    "imcs_v2": {
        "place": f"{GITHUB}lemuria-wchen/imcs21",
        "files": "the dialogues; their newer labels are in CBLUE",
        "rows": 4_116,
        "shape": '{id: {"self_report", "dialogue": [{"speaker", "sentence"}, ...]}}',
    },
    "chip_mdcfnpc": {
        "place": "https://tianchi.aliyun.com/dataset/95414",
        "files": "CHIP-MDCFNPC",
        "rows": 8_000,
        "licence": "by the form",
        "shape": '{"dialog_id", "dialog_info": [{"sender", "text", ...}, ...]}',
        "get": _CBLUE,
    },
    "meddg": {
        "place": "https://tianchi.aliyun.com/dataset/95414",
        "files": "MedDG",
        "rows": 17_864,
        "licence": "by the form",
        "shape": "dialogues labelled with entities",
        "get": _CBLUE,
    },
    "huatuogpt_sft_v1": {
        "place": "FreedomIntelligence/HuatuoGPT-sft-data-v1",
        "rows": 226_000,
        "licence": APACHE,
        "shape": '{"data": ["问：...", "答：...", ...]}',
    },
    "flashcards": {
        "place": "medalpaca/medical_meadow_medical_flashcards",
        "language": "en",
        "rows": 33_955,
        "licence": "cc",
        "shape": ALPACA,
        "map_fn": "alpaca",
    },
    "medalpaca": {
        "place": f"{GITHUB}kbressem/medAlpaca",
        "files": "medical_meadow_small.json",
        "language": "en",
        "rows": 5_942,
        "licence": "not stated; the code's is gpl-3.0",
        "shape": ALPACA,
        "map_fn": "alpaca",
    },
    "cmtmedqa": {
        "place": "Suprit/CMtMedQA",
        "rows": 70_000,
        "licence": "mit",
        "shape": '{"instruction", "input", "output", "history"}',
        "map_fn": "alpaca",
    },
    "med_chatglm": {
        "place": f"{GITHUB}SCIR-HI/Med-ChatGLM",
        "files": "data/",
        "licence": APACHE,
        "shape": ALPACA,
        "map_fn": "alpaca",
    },
    "cmb": {
        "place": f"{HUB}FreedomIntelligence/CMB/CMB-Exam/CMB-train/CMB-train-merge.json",
        "rows": 269_359,
        "licence": APACHE,
        "shape": '{"question", "option": {"A": text, ...}, "answer", ...}',
        "map_fn": "cmb",
    },
    "disc_med": {
        "place": "Flmc/DISC-Med-SFT",
        "rows": 464_882,
        "licence": APACHE,
        "shape": '{"conversation": [{"role", "content"}, ...], ...}',
        "columns": {"messages": "conversation"},
        "map_fn": "openai",
    },
    "medqa2019": {
        "place": f"{GITHUB}InternLM/tutorial",
        "files": "xtuner/MedQA2019.xlsx, sheet DrugQA",
        "language": "en",
        "rows": 690,
        "shape": "a sheet: A the question, D the answer",
        "columns": {"input": "A", "output": "D"},
        "map_fn": "default",
    },
}

# A better and a worse answer.
REWARD: dict[str, dict[str, Any]] = {
    "rm_medical": {
        "place": f"{HUB}shibing624/medical/reward/train.json",
        "rows": 3_800,
        "licence": APACHE,
        "shape": '{"question", "response_chosen", "response_rejected"}',
        "map_fn": "question_preference",
    },
    "rm_medicalgpt": {
        "place": f"{GITHUB}shibing624/MedicalGPT",
        "files": "data/reward/",
        "rows": 500,
        "licence": APACHE,
        "shape": '{"conversations", "chosen", "rejected"}',
        "map_fn": "sharegpt_preference",
    },
    "rm_zhongjing": {
        "place": f"{GITHUB}SupritYoung/Zhongjing",
        "files": "data/: not in the repository today; ask its authors",
        "licence": APACHE,
        "shape": '{"instruction", "input", "output": [better, worse]}',
        "map_fn": "ranked",
    },
    "rm_comparison_zh": {
        "place": f"{HUB}wangrongsheng/comparison_gpt4_data/comparison_gpt4_data_zh.json",
        "rows": 36_000,
        "shape": '{"instruction", "input", "output": [better, worse]}',
        "map_fn": "ranked",
    },
    "rm_comparison_en": {
        "place": f"{HUB}wangrongsheng/comparison_gpt4_data/comparison_gpt4_data_en.json",
        "language": "en",
        "rows": 36_000,
        "shape": '{"instruction", "input", "output": [better, worse]}',
        "map_fn": "ranked",
    },
}
