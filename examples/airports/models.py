"""The service's PynamoDB model, as it was before anybody thought of PostgreSQL."""

import os

from pynamodb.attributes import NumberAttribute, UnicodeAttribute, UnicodeSetAttribute
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex
from pynamodb.models import Model


class CountryIndex(GlobalSecondaryIndex["Airport"]):
    """The airports of a country by city; an airport without a city is not in it."""

    class Meta:
        index_name = "by_country"
        projection = AllProjection()

    country = UnicodeAttribute(hash_key=True)
    city = UnicodeAttribute(range_key=True)


class IataIndex(GlobalSecondaryIndex["Airport"]):
    """Airports by the code on your luggage tag; most airstrips have none and are not in it."""

    class Meta:
        index_name = "by_iata"
        projection = AllProjection()

    iata = UnicodeAttribute(hash_key=True)


class Airport(Model):
    """One airport. What an airport does not have (a city, an IATA code) is absent, never empty."""

    class Meta:
        table_name = os.environ.get("AIRPORTS_TABLE", "airports")
        region = os.environ.get("AWS_REGION", "us-east-1")
        host = os.environ.get("AIRPORTS_DYNAMODB_URL")  # None: AWS itself
        billing_mode = "PAY_PER_REQUEST"

    icao = UnicodeAttribute(hash_key=True)
    iata = UnicodeAttribute(null=True)
    lid = UnicodeAttribute(null=True)
    name = UnicodeAttribute()
    city = UnicodeAttribute(null=True)
    subd = UnicodeAttribute(null=True)
    country = UnicodeAttribute()
    elevation = NumberAttribute()
    lat = NumberAttribute()
    lon = NumberAttribute()
    tz = UnicodeAttribute()
    visits = NumberAttribute(null=True)
    visitors = UnicodeSetAttribute(null=True)
    note = UnicodeAttribute(null=True)

    by_country = CountryIndex()
    by_iata = IataIndex()
