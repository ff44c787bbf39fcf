"""questions and the SQL that answers them."""

_base_ = "sft"

data_path = "b-mc2/sql-create-context"
dataset_map_fn = "question_answer"
SYSTEM = "You are an SQL expert. Given CREATE TABLE statements and a question, write the query that answers it."
evaluation_inputs = [
    "CREATE TABLE visits (patient VARCHAR, ward VARCHAR, days INTEGER)\nHow many patients stayed over 7 days?"
]
