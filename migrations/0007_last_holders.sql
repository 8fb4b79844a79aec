-- Whoever lifts an effect asks who held it last; without this that was a look at every hold there ever was.
CREATE INDEX holds_last ON holds (effect_id, response_id);
