"""The names by which question files call their columns, in the languages in which people write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence


def _keys(*lines: str) -> tuple[str, ...]:
    """The keys of names that are separated by commas, in order, each once."""
    return tuple(dict.fromkeys(key_of(name) for line in lines for name in line.split(",")))


def key_of(name: str) -> str:
    """A column's name without what differs from file to file: `questionText`, `Question text` -> `question_text`.

    That is case, accents, spaces, hyphens, a colon or star at the end, and characters that are not seen.
    """
    text = unicodedata.normalize("NFKD", str(name))
    # A mark that stands on a Latin, Greek or Cyrillic letter is an accent; in other scripts it may be a vowel.
    seen = [
        character
        for place, character in enumerate(text)
        if unicodedata.category(character) != "Cf"
        and not (0x300 <= ord(character) < 0x370 and place and text[place - 1].isalpha())
    ]
    text = unicodedata.normalize("NFKC", "".join(seen))
    text = re.sub(r"(?<=[^\W\d_])(?=[A-Z])(?<![A-Z])", "_", text)
    return re.sub(r"[\s_\-.*:?]+", "_", text.strip().casefold()).strip("_")


def short_key(name: str) -> str:
    """The key of a name without what follows it: `Answer 1 - max 75 characters`, `Correct answer(s)`."""
    return key_of(re.split(r"\s+[-–—]\s+|[(（\[【|]", str(name).strip())[0])


PROMPTS = _keys(
    "prompt,question,question_text,questiontext,question_stem,stem,query,problem,question_title,question_content",
    "startphrase,ctx,goal,sentence,sent1,input,q",
    "pregunta,enunciado,pergunta,questão,énoncé,intitulé,texte de la question,frage,fragetext",
    "fragestellung,aufgabe",
    "domanda,quesito,testo della domanda,vraag,fråga,spørgsmål,spørsmål,kysymys,pytanie,treść pytania",
    "otázka,otazka",
    "kérdés,întrebare,intrebare,въпрос,вопрос,текст вопроса,питання,запитання,пытанне,pitanje,vprašanje,klausimas",
    "küsimus,jautājums,soru,soru metni,ερώτηση,السؤال,سؤال,سوال,پرسش,שאלה,प्रश्न,প্রশ্ন,soal,pertanyaan,soalan",
    "câu hỏi,nội dung câu hỏi,nội dung,คำถาม,题目,題目,题干,題幹,问题,問題,试题,試題,题目内容,題目內容",
    "试题内容,問題內容",
    "问题内容,题干内容,试题题干,試題內容,題幹內容,問題文,質問,設問,질문,문제,문항,question_name,text,content,title",
)
"""Of the question, those that say so before those that may mean something else (text, content, title)."""
SURE_PROMPTS = frozenset(PROMPTS) - {
    "text",
    "content",
    "title",
    "input",
    "goal",
    "q",
    "sentence",
    "question_name",
    "noi_dung",
}

IDS = _keys(
    "id,qid,question_id,questionid,q_id,uid,guid,gid,uuid,item_id,idx,index,example_id,realidx,_id",
    "number,question_number,nr,no,num,№,номер,number of question,numero,número,nummer,stt,序号,序號,编号",
    "編號,题号,題號,번호,番号",
)
"""Of the ids; a column so called is one only where it tells all rows apart."""

ANSWERS = _keys(
    "answer,answer_key,answerkey,correct_answer,correctanswer,correct_option,correct_choice",
    "correct,right_answer,right_option,label,labels,gold,gold_label,target,cop",
    "answer_idx,answer_index,answer_letter,correct_index,correct_idx,ans,key,solution,correct_awnser",
    "respuesta correcta,respuesta,correcta,solución,resposta correta,resposta certa,resposta,correta,gabarito",
    "bonne réponse,réponse correcte,réponse,richtige antwort,richtig,antwort,lösung,korrekt,korrekte antwort",
    "risposta corretta,risposta esatta,risposta,corretta,juiste antwoord,correct antwoord,antwoord,rätt svar,rätt",
    "svar,rigtigt svar,riktig svar,korrekt svar,oikea vastaus,vastaus,poprawna odpowiedź,prawidłowa odpowiedź",
    "odpowiedź,poprawna,správná odpověď,správně,odpověď,odpoved,helyes válasz,válasz,răspuns corect,răspuns",
    "правильный ответ,верный ответ,правильный вариант,ответ,правильна відповідь,вірна відповідь,відповідь",
    "верен отговор",
    "отговор,tačan odgovor,točan odgovor,odgovor,doğru cevap,doğru şık,doğru yanıt,cevap,σωστή απάντηση,απάντηση",
    "الإجابة الصحيحة,الاجابة الصحيحة,الإجابة,الجواب,صحیح جواب,پاسخ صحیح,پاسخ,جواب,תשובה נכונה,תשובה,सही उत्तर,उत्तर",
    "সঠিক উত্তর,উত্তর,jawaban benar,kunci jawaban,jawaban,kunci,jawapan,đáp án đúng,đáp án,câu trả lời đúng",
    "câu trả lời,คำตอบ,เฉลย,答案,正确答案,正確答案,标准答案,標準答案,参考答案,正确选项,正確選項,试题答案",
    "正解,正答,答え,解答,정답,답",
)

CONTEXTS = _keys("support,passage,article,paragraph,fact1,combinedfact,background,文章,阅读材料")
"""Not those that explain the answer (MedMCQA's exp): the user may name them, but they give it away."""

LISTS = _keys(
    "choices,options,option,answer_choices,answer_options,endings,candidates,alternatives,mc1_targets",
    "choice,option_list",
    "possible_answers,question_answers",
    "opciones,opções,alternativas,optionen,antwortmöglichkeiten,antwortoptionen,choix,propositions,opzioni,opties",
    "alternativ,svarsalternativ,svaralternativer,vaihtoehdot,opcje,možnosti,moznosti,варианты,варианты ответов",
    "варианты ответа,варіанти,варіанти відповідей,seçenekler,şıklar,الخيارات,الاختيارات,گزینه ها,विकल्प,pilihan",
    "pilihan jawaban,opsi,các lựa chọn,lựa chọn,phương án,选项,選項,选项列表,選択肢,보기,선택지,ตัวเลือก",
    "answers,respuestas,respostas,réponses,antworten,risposte,antwoorden,svar,odpowiedzi,odpovědi,ответы,відповіді",
)
"""Of one column that holds all options."""

RIGHT = _keys(
    "correct_answer,correct,right_answer,answer,correct_answers,richtige antwort,respuesta correcta",
    "resposta correta",
    "bonne réponse,réponse correcte,risposta corretta,правильный ответ,правильна відповідь,poprawna odpowiedź",
)
WRONG_LISTS = _keys(
    "incorrect_answers,wrong_answers,distractors,incorrect,incorrect_options,wrong_options,false_answers",
    "falsche antwort,falsche antworten,respuestas incorrectas,respostas incorretas,réponses incorrectes",
    "mauvaises réponses,risposte sbagliate,неправильные ответы,неправильні відповіді",
)
WRONG = re.compile(
    r"(?:distractors?|incorrect(?:_answer)?|wrong(?:_answer)?|falsche_antwort|respuesta_incorrecta)_?(\d{1,2})"
)

_STEMS = _keys(
    "option,options,opt,op,choice,choices,answer,answers,answer option,answer choice,ans,ending,endings",
    "sol,solution",
    "alternative,variant,answer_text,option_text,opción,respuesta,opção,resposta,alternativa,réponse",
    "choix,proposition",
    "antwort,antwortmöglichkeit,auswahl,opzione,risposta,optie,antwoord,alternativ,svar,vaihtoehto,opcja,odpowiedź",
    "możliwość,možnost,moznost,odpověď,válasz,variantă,varianta,вариант,вариант ответа,ответ,варіант",
    "відповідь,seçenek",
    "şık,الخيار,خيار,اختيار,گزینه,विकल्प,pilihan,opsi,lựa chọn,phương án,đáp án,ตัวเลือก,选项,選項,选择",
    "答案选项,選択肢,選択,보기,선택지",
)
_STEM = "|".join(sorted(map(re.escape, _STEMS), key=len, reverse=True))
_MARK = r"[a-z]|\d{1,2}"
# A选项, a_option; but MedMCQA's `cop` is no option C.
_NUMBERED = re.compile(rf"(?:({_STEM})_?({_MARK})|({_MARK})(?:_|(?=[^a-z_]))({_STEM}))(?:_text)?")

# A name of words of the second line alone is one of the answer where a word of the first is among them.
_ANSWER_WORDS = frozenset("correct right answer answers".split())
_OTHER_WORDS = frozenset(
    "option options choice choices index indices indexes idx letter letters number numbers no id ids key keys label "
    "labels text position positions value values s the of".split()
)


def numbered(key: str) -> tuple[str, str] | None:
    """Of the key of a column that holds one option, what all such columns share, and its letter or number."""
    match = _NUMBERED.fullmatch(key)
    if match is None:
        return None
    return (match[1], match[2]) if match[1] else (match[4], match[3])


def names_answer(key: str) -> bool:
    """Whether a key that is none of `ANSWERS` says all the same that the column holds right answers."""
    words = set(key.split("_"))
    return bool(words & _ANSWER_WORDS) and words <= _ANSWER_WORDS | _OTHER_WORDS and not numbered(key)


def by_key(names: Sequence[str]) -> dict[str, str]:
    """The columns of these names by their keys, and behind those by their short keys; the first of equal ones."""
    keys: dict[str, str] = {}
    for form in (key_of, short_key):
        for name in names:
            keys.setdefault(form(name), name)
    return keys


def are_of_question(names: Sequence[str]) -> bool:
    """Whether there are names of the question and of its options among those of some columns."""
    keys = set(by_key(names))
    options = {"a", "b"} <= keys or keys & _OF_OPTIONS or sum(numbered(key) is not None for key in keys) >= 2
    return bool(options) and not keys.isdisjoint(PROMPTS)


_OF_OPTIONS = {*LISTS, *WRONG_LISTS}
