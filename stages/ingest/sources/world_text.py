"""The words of the synthetic store: what it sells, in the order in which one thing follows another, and how things are called."""

# Department -> its categories, each followed up by the next two.
DEPARTMENTS = {
    "Hair Care": ("Shampoo", "Conditioner", "Hair Mask", "Hair Oil", "Styling Cream", "Hair Brush", "Hair Dryer", "Hair Clips"),
    "Coffee": ("Coffee Beans", "Coffee Grinder", "Kettle", "Coffee Dripper", "Paper Filters", "Coffee Mug", "Milk Frother", "Biscuits"),
    "Running": ("Running Shoes", "Running Socks", "Running Shorts", "Running Shirt", "Cap", "Water Bottle", "Running Belt", "Foam Roller"),
    "Painting": ("Sketchbook", "Pencil Set", "Watercolours", "Paint Brushes", "Palette", "Easel", "Canvas", "Varnish"),
    "Baking": ("Mixing Bowl", "Whisk", "Flour Sieve", "Baking Tin", "Rolling Pin", "Cooling Rack", "Icing Set", "Cake Stand"),
    "Camping": ("Tent", "Sleeping Bag", "Sleeping Mat", "Camp Stove", "Cook Set", "Lantern", "Folding Chair", "Rucksack"),
    "Photography": ("Camera", "Lens", "Memory Card", "Camera Bag", "Tripod", "Lens Filter", "Flash", "Photo Album"),
    "Garden": ("Seed Tray", "Flower Seeds", "Potting Soil", "Plant Pot", "Watering Can", "Fertiliser", "Secateurs", "Garden Gloves"),
    "Dogs": ("Puppy Food", "Feeding Bowl", "Collar", "Dog Lead", "Dog Bed", "Chew Toy", "Dog Treats", "Dog Shampoo"),
    "Writing": ("Notebook", "Fountain Pen", "Ink", "Pen Case", "Desk Pad", "Desk Lamp", "Envelopes", "Sealing Wax"),
    "Cycling": ("Bicycle Helmet", "Bicycle Lock", "Bicycle Light", "Bicycle Pump", "Tyre", "Chain Oil", "Saddle Bag", "Cycling Gloves"),
    "Music": ("Guitar", "Guitar Strings", "Plectrums", "Guitar Strap", "Tuner", "Capo", "Music Stand", "Songbook"),
}
_FIRST = ("Vel", "Kan", "Mor", "Tas", "Bel", "Dor", "Fen", "Gal", "Hul", "Jas", "Lum", "Nor", "Pel", "Quin", "Ril", "Sol")
_SECOND = ("ora", "tis", "eno", "ika", "ander", "ova", "ette", "ium", "wick", "aro", "ell", "ista", "ombe", "ux", "ley", "andra")
BRANDS = tuple(_FIRST[i % 16] + _SECOND[(i + i // 16) % 16] for i in range(256))  # all pairs, neighbours alike in neither half
LINES = (
    *("Classic", "Alpine", "Pure", "Urban", "Royal", "Nordic", "Compact", "Deluxe", "Everyday", "Golden", "Harvest", "Infinity"),
    *("Junior", "Lagoon", "Light", "Meadow", "Midnight", "Modern", "Natural", "Ocean", "Original", "Pacific", "Pioneer", "Premium"),
    *("Quick", "Rapid", "Sierra", "Silver", "Simple", "Solid", "Spring", "Studio", "Summit", "Sunrise", "Travel", "Trend"),
    *("Ultra", "Velvet", "Vintage", "Willow"),
)


def title(brand: str, category: str, cell: int, place: int) -> str:
    """Of the item that is the `place`-th (from 0) of its brand and category; no two of the store are alike. `cell`: their number."""
    again, line = divmod(place, len(LINES))
    return f"{brand} {LINES[(line + cell) % len(LINES)]} {category}" + (f" No. {again + 1}" if again else "")
