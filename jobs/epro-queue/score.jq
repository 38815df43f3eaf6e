# PHQ-9: the sum of nine answers from 0 to 3. WHO-5: four times the sum of five answers from 0 to 5.
# What cannot be scored is rejected with the reason, so that it does not come back every minute.

def ended(status; score; reason): {id, status: status, score: score, reason: reason, run: $run.id};

def scored(questions; most; factor):
  (try (.answers | fromjson) catch null) as $answers
  | if ($answers | type) != "array" then ended("rejected"; null; "the answers are no list")
    elif ($answers | length) != questions then ended("rejected"; null; "there are not \(questions) answers")
    elif ($answers | all(.[]; type == "number" and . >= 0 and . <= most and . == floor) | not)
    then ended("rejected"; null; "an answer is no whole number from 0 to \(most)")
    else ended("scored"; ($answers | add) * factor; null)
    end;

if .instrument == "phq9" then scored(9; 3; 1)
elif .instrument == "who5" then scored(5; 5; 4)
else ended("rejected"; null; "there is no rule for this instrument")
end
