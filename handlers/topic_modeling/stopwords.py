"""The words that belong to no topic: they hold sentences together, whatever these are about.

Function words, auxiliaries, numerals, days and months, and what a reader of words finds before an
apostrophe (`don't` is read as `don` and `t`); words of one or two letters are never read. Words
that some texts are about, such as `fire`, `bill`, `system` or `state`, are not among them.
"""

from __future__ import annotations

ENGLISH = """
able about above according accordingly across actually add added adding after afterwards again
against ago ain all allow allows almost alone along already also although always among amongst and
another any anybody anyhow anymore anyone anything anyway anyways anywhere apart apparently april
are aren arent around aside ask asked asking august away back became because become becomes becoming
been before beforehand began begin behind being believe below beside besides best better between
beyond both bring but call called came can cannot cant certain certainly clearly come comes coming
consequently considering could couldn couldnt course currently day days december definitely describe
described despite did didn didnt different does doesn doesnt doing don done dont down downwards due
during each early eight either eleven else elsewhere end enough entirely especially etc even ever
every everybody everyone everything everywhere exactly example except far february few fifteen fifth
fifty find first five followed following for former formerly forth forty found four friday from full
further furthermore gave get gets getting give given gives giving goes going gone gonna good got
gotta gotten great had hadn hadnt half happen happened happens hardly has hasn hasnt have haven
havent having hello help hence her here hereafter hereby herein hereupon hers herself hes hey him
himself his hmm hopefully how howbeit however hundred ill immediately inasmuch indeed insofar
instead into isn isnt its itself ive january july june just keep keeps kept knew know known knows
largely last late lately later latter least left less lest let lets like liked likely little long
longer look looked looking looks lot lots made mainly make makes making many march may maybe mean
means meant meanwhile merely might million mine monday more moreover most mostly much must mustn
myself name namely near nearly necessary need needed needn needs neither never nevertheless new next
nine nobody non none nonetheless noone nor not nothing notice november now nowhere obviously october
off often okay old once one ones only onto other others otherwise ought our ours ourselves out
outside over overall own part particular particularly people per perhaps place please plus possible
possibly presumably probably put putting quite rather really recent recently regarding regardless
regards relatively respectively right said same saturday saw say saying says second secondly see
seeing seem seemed seeming seems seen self selves sent september seriously set seven several shall
shan she shes should shouldn shouldnt show showed shown shows similar since six sixty some somebody
somehow someone something sometime sometimes somewhat somewhere soon sorry still such sunday sure
take taken takes taking tell ten than thank thanks thanx that thats the their theirs them themselves
then thence there thereafter thereby therefore therein thereof theres thereupon these they theyre
theyve thing things think third thirty this thorough thoroughly those though thought thousand three
through throughout thru thursday thus time times today together told too took toward towards tried
tries true truly try trying tuesday twelve twenty twice two under unfortunately unless unlike
unlikely until unto upon use used useful uses using usually various very via wanna want wanted wants
was wasn wasnt way ways wednesday week weeks well went were weren werent what whatever when whence
whenever where whereafter whereas whereby wherein whereupon wherever whether which while whither who
whoever whole whom whose why will willing wish with within without won wonder wont would wouldn
wouldnt yeah year years yes yesterday yet you young your youre yours yourself yourselves youve zero
"""

FRENCH = """
abord affirme affirmé afin aie aient ailleurs ainsi ait ajoute ajouté allaient allait aller allez
allo allons allô alors ancien ancienne année années annonce annoncé ans août après arrive arriver
arrivé assez assurément attendu aucun aucune aucuns aujourd auparavant auprès auquel aura aurai
auraient aurais aurait auras aurez auriez aurions aurons auront aussi aussitôt autant autour autre
autrefois autrement autres autrui aux auxquelles auxquels avaient avais avait avant avec avez aviez
avions avoir avons avril ayant ayez ayons bah beau beaucoup bel ben bien bientôt bon bonjour bonne
bonsoir bravo car ceci cela celle celles celui cent cependant certain certaine certainement
certaines certains certes ces cet cette ceux chacun chacune chaque chaud cher chers chez chère
chères chose choses cinq cinquante cinquième combien comme comment compris concernant contre côté
croire crois croit dans davantage debout dedans dehors delà demain demande demandé depuis dernier
derniers dernière dernières derrière des desquelles desquels dessous dessus deux deuxième
deuxièmement devait devant devenir devenu deviez devoir devons devra devraient devrait devrez dès
décembre déclare déclaré déjà désormais différent différente différentes différents dimanche dire
dis disait disant disent dit dite dites dits divers diverse diverses dix dixième dois doit doivent
donc donne donner donné dont douze droite duquel durant effet elle elles encore enfin ensemble
ensuite entre envers environ est estime estimé etc eue eues euh eurent eus eusse eussent eut eux
exactement exemple explique expliqué également étaient étais était étant été étiez étions êtes être
face facile faire fais faisaient faisait faisant faisons fait faite faites faits fallait faudra
faudrait faut fera ferai feraient ferait feront février fin firent fois font force fort forte furent
fussent fut fût gens grand grande grandes grands grâce gros hein heure heures hélas hier hop hormis
hors hui huit huitième hum ici ils immédiatement importe indique indiqué jamais janvier jeudi jour
journée jours juillet juin jusqu jusque juste laisse laisser laquelle las lequel les lesquelles
lesquels leur leurs loin longtemps lors lorsqu lorsque lui lundi madame mademoiselle maintenant mais
malgré manière mardi mars matin mauvais mauvaise merci mercredi mes met mettre même mêmes mien
mienne miennes miens mieux mille milliers million millions mis mise moi moindre moins mois moment
mon monsieur mot mots moyennant naturellement neuf neuvième néanmoins nombre nombreuses nombreux non
nos notamment notre nous nouveau nouveaux nouvel nouvelle nouvelles novembre nôtre nôtres nul nulle
obtenir octobre ont onze ouais ouf oui outre par parce parfois parle parlent parler parlez parmi
part particulier particulièrement partie partir partout pas passer passé pendant pense penser perdu
permet permettre personne personnes petit petite petites petits peu peut peuvent peux pire place
plein plupart plus plusieurs plutôt point possible pour pourquoi pourra pourraient pourrais pourrait
pourrez pourront pourtant pouvaient pouvait pouvez pouvoir pouvons premier premiers première
premièrement premières prend prendre presque près précise précisé pris probablement prochain
prochaine proche puis puisqu puisque puissent quand quant quarante quatorze quatre quatrième que
quel quelconque quelle quelles quelqu quelque quelques quels question questions qui quiconque quinze
quoi quoiqu quoique rappelle reste rien sais sait samedi sans sauf savent savez savoir savons sein
seize selon semaine semaines semble sept septembre septième sera serai seraient serais serait seras
serez seriez serions serons seront ses seul seule seulement seuls sien sienne siennes siens simple
simplement sinon sitôt six sixième soi soient sois soit soixante sommes son sont souhaite souhaité
sous souvent soyez soyons suis suite suivant suivante sujet supposé sur surtout sûr tandis tant tard
tel telle tellement telles tels temps tenir tes tien tienne tient toi ton toujours tour tous tout
toute toutefois toutes tôt traver travers treize trente très trois troisième trop trouve trouver une
unes uns vais vas vaut vendredi venir venu venue vers veulent veut veux via viennent vient vingt vis
voici voient voilà voir voire vois voit volontiers vont vos votre voudrais voudrait voulait voulez
vouloir voulons voulu vous voyez vôtre vôtres vrai vraie vraiment vue zéro
"""

STOPWORDS: dict[str, frozenset[str]] = {
    "en": frozenset(ENGLISH.split()),
    "fr": frozenset(FRENCH.split()),
}
"""By language, in lower case."""
