"""What columns are commonly called, by what they are."""

import re
import unicodedata

_TEXT = {
    "user": (
        "user users uid member members customer customers client kunde kunden kundin account person people listener "
        "reader viewer buyer shopper visitor reviewer subscriber patient student player profile guest household"
    ),
    "item": (
        "item items product products produkt sku asin article articles artikel artnr movie movies film song songs track "
        "book books isbn game games app video videos business news listing offer recipe course place"
    ),
    "timestamp": (
        "time times timestamp ts date datetime day when at created played zeit zeitpunkt datum clicked purchased "
        "ordered bought watched reviewed rated gekauft bestellt shown displayed served gezeigt"
    ),
    "rating": "rating ratings stars star score grade overall bewertung preference",
    "title": "title titles name titel headline bezeichnung label",
    "brand": "brand maker manufacturer marke hersteller artist author publisher vendor developer director",
    "categories": "category categories dept section kategorie kategorien genre genres tag tags kind kinds class department topic topics",
    "year": "year jahr release released published",
    "slate": "slate slates impression impressions list lists request requests serp page query liste",
    "place": "place position pos rank slot index platz rang",
    "taken": (
        "taken click clicks clicked chosen choice label bought purchased selected played watched hit response klick geklickt "
        "angeklickt gekauft"
    ),
    "grades": "grade grades worth gain gains relevance weight weights label labels",
}
# Spanish, French, Italian and Portuguese, without accents. There the first word says what it is: fecha_compra, nom_produit.
_ROMANCE_TEXT = {
    "user": "usuario usuarios usuaria cliente clientes socio socios comprador utilisateur acheteur membre utente utenti utilizador",
    "item": (
        "producto productos articulo articulos referencia pelicula libro cancion produit produits livre chanson prodotto prodotti articolo "
        "articoli produto produtos artigo artigos livro"
    ),
    "timestamp": "date fecha hora momento horodatage heure data ora dia",
    "rating": "valoracion puntuacion calificacion estrellas nota note etoiles voto valutazione avaliacao",
    "title": "titulo nombre denominacion titre nom libelle designation titolo nome denominazione",
    "brand": "marca marque fabricante fabricant autor autora auteur autore artista",
    "categories": "categoria categorias categorie genero familia famille seccion departamento rayon",
    "year": "ano anno annee",
    "slate": "impresion impresiones lista peticion consulta requete richiesta",
    "place": "posicion puesto posizione posicao",
    "taken": "clic clics clique cliques comprado pulsado elegido achete acquistato",
    "grades": "",
}
_ROMANCE = frozenset(" ".join(_ROMANCE_TEXT.values()).split())
WORDS = {role: frozenset(f"{words} {_ROMANCE_TEXT[role]}".split()) for role, words in _TEXT.items()}
_IGNORED = {
    *("id", "ids", "key", "code", "nr", "no", "number", "nummer", "at", "on", "am", "token", "float", "seq"),
    *("path", "tree", "cod", "codigo", "codice", "num", "numero", "de", "del", "du", "da", "do", "di"),
}
_NUMBER_OF = re.compile(r"(nummer|nr|ids?|key|code)$")
_GERMAN_COMPOUND = re.compile(r".+(datum|zeitpunkt|bezeichnung|kategorie|bewertung)$")
_NAMES = {"name", "names", "label", "nombre", "nom", "nome"}


def fit(role: str, name: str) -> int:
    """How well a column's name says `role`: 2 all of it (but for "id"), 1 its last word, 0 not at all."""
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    plain = unicodedata.normalize("NFKD", split.lower()).encode("ascii", "ignore").decode()
    words = [_word(token) for token in re.split(r"[^a-z0-9]+", plain) if token and token not in _IGNORED]
    if words and words[0] in _ROMANCE:
        words.append(words.pop(0))
    # The last word says what it is, the others of what: a release date, a user's rating. But a brand name is a brand.
    if len(words) > 1 and words[-1] in _NAMES and any(words[-2] in WORDS[other] for other in ("brand", "categories", "user")):
        words = words[:-1]
    if not words or words[-1] not in WORDS[role]:
        return 0
    return 2 if all(word in WORDS[role] for word in words) else 1


def _word(token: str) -> str:
    """userid -> user, kundennummer -> kunden, bestelldatum -> datum."""
    if compound := _GERMAN_COMPOUND.fullmatch(token):
        return compound[1]
    stem = _NUMBER_OF.sub("", token)
    return stem if any(stem in words for words in WORDS.values()) else token
