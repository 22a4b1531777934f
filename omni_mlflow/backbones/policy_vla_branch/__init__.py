"""A vision-language-action model that turns what the wearer sees into the next motion of both hands."""
